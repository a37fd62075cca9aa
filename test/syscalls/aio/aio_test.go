// Package aio claims of io_setup(2) and its kin: the ring is a mapping like others, which can be moved, unmapped
// and replaced, and belongs to one process; requests use the memory that is mapped when they run.
package aio

import (
	"os"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

func TestMain(m *testing.M) { kit.Main(m) }

// Commands of struct iocb.
const (
	pread  = 0
	pwrite = 1
	preadv = 7
)

// An iocb is struct iocb of linux/aio_abi.h, little-endian.
type iocb struct {
	data         uint64
	key, rwFlags uint32
	opcode       uint16
	priority     int16
	fd           uint32
	buf, nbytes  uint64
	offset       int64
	reserved     uint64
	flags, resFd uint32
}

// An event is struct io_event.
type event struct {
	data, obj uint64
	res, res2 int64
}

// setup makes a context and returns its name, which is the address of its ring.
func setup(t *testing.T, actor *kit.Actor) uintptr {
	t.Helper()
	id := (*uintptr)(unsafe.Pointer(&kit.Shared(t, kit.PageSize)[0]))
	r := actor.Call(unix.SYS_IO_SETUP, 8, kit.Pointer(id))
	require.True(t, r.OK(), "io_setup: %v", r)
	t.Cleanup(func() { kit.Me.Call(unix.SYS_IO_DESTROY, *id) })
	return *id
}

func destroy(id uintptr) unix.Errno { return kit.Me.Call(unix.SYS_IO_DESTROY, id).Errno }

// submit passes one request to a context.
func submit(id uintptr, opcode uint16, fd int, buf, length uintptr, offset int64) kit.Result {
	request := &iocb{data: 77, opcode: opcode, fd: uint32(fd), buf: uint64(buf), nbytes: uint64(length), offset: offset}
	list := []*iocb{request}
	defer runtime.KeepAlive(list)
	return kit.Me.Call(unix.SYS_IO_SUBMIT, id, 1, kit.Pointer(&list[0]))
}

// collect waits for one event of a context.
func collect(id uintptr) (event, kit.Result) {
	events := make([]event, 1)
	r := kit.Me.Call(unix.SYS_IO_GETEVENTS, id, 1, 1, kit.Pointer(&events[0]), 0)
	return events[0], r
}

// poll asks for events without waiting.
func poll(id uintptr) kit.Result {
	events := make([]event, 1)
	return kit.Me.Call(unix.SYS_IO_GETEVENTS, id, 0, 1, kit.Pointer(&events[0]), 0)
}

// transfer runs one request to its end and returns what became of it.
func transfer(t *testing.T, id uintptr, opcode uint16, fd int, buf, length uintptr, offset int64) int64 {
	t.Helper()
	require.Equal(t, kit.Result{Value: 1}, submit(id, opcode, fd, buf, length, offset))
	e, r := collect(id)
	require.Equal(t, kit.Result{Value: 1}, r)
	require.Equal(t, uint64(77), e.data)
	return e.res
}

func works(t *testing.T, id uintptr) {
	t.Helper()
	fd := kit.File(t, 1)
	buffer := kit.Shared(t, kit.PageSize)
	assert.Equal(t, int64(kit.PageSize), transfer(t, id, pread, fd, uintptr(unsafe.Pointer(&buffer[0])), kit.Len(1), 0))
	assert.Equal(t, byte('A'), buffer[100])
}

// ring returns the lines of maps that begin at an address.
func ring(t *testing.T, id uintptr) []kit.Line {
	t.Helper()
	data, err := os.ReadFile("/proc/self/maps")
	require.NoError(t, err)
	lines, err := kit.ParseMaps(data)
	require.NoError(t, err)
	var found []kit.Line
	for _, l := range lines {
		if l.Start == id {
			found = append(found, l)
		}
	}
	return found
}

func TestContextWorks(t *testing.T) {
	id := setup(t, kit.Me)
	works(t, id)
	assert.Zero(t, destroy(id))
	assert.Equal(t, unix.EINVAL, poll(id).Errno)
}

func TestRingIsAMapping(t *testing.T) {
	id := setup(t, kit.Me)
	found := ring(t, id)
	require.Len(t, found, 1)
	assert.True(t, strings.HasPrefix(found[0].Name, "/[aio]"), found[0].Name)
	assert.False(t, kit.Me.Load(id).Faulted())
}

func TestRingLine(t *testing.T) {
	id := setup(t, kit.Me)
	found := ring(t, id)
	require.Len(t, found, 1)
	kit.Say(t, "%s %s %d", found[0].Perms, found[0].Name, found[0].Offset)
}

func TestRefusals(t *testing.T) {
	a := kit.NewArena(t, 2)
	a.Anon(t, 0, 1, kit.RW, 0)
	setupAt := func(events, addr uintptr) unix.Errno { return kit.Me.Call(unix.SYS_IO_SETUP, events, addr).Errno }
	t.Run("setup of no events", func(t *testing.T) { assert.Equal(t, unix.EINVAL, setupAt(0, a.Page(0))) })
	t.Run("setup of too many events", func(t *testing.T) {
		e := setupAt(1<<31-1, a.Page(0))
		assert.NotZero(t, e)
		kit.Say(t, "%s", kit.ErrnoName(e))
	})
	t.Run("setup into nothing", func(t *testing.T) { assert.Equal(t, unix.EFAULT, setupAt(8, a.Page(1))) })
	t.Run("setup over a context", func(t *testing.T) {
		require.False(t, kit.Me.Store64(a.Page(0), 1).Faulted())
		assert.Equal(t, unix.EINVAL, setupAt(8, a.Page(0)))
	})
	t.Run("destroy of nothing", func(t *testing.T) { assert.Equal(t, unix.EINVAL, destroy(a.Page(1))) })
	t.Run("destroy of other memory", func(t *testing.T) {
		assert.Equal(t, unix.EINVAL, destroy(a.Page(0)))
		assert.Equal(t, []string{"01"}, a.Bytes(kit.Me, 0, 1), "it is still there")
	})
	t.Run("destroy twice", func(t *testing.T) {
		id := setup(t, kit.Me)
		require.Zero(t, destroy(id))
		assert.Equal(t, unix.EINVAL, destroy(id))
	})
	t.Run("submit of a bad file", func(t *testing.T) {
		assert.Equal(t, unix.EBADF, submit(setup(t, kit.Me), pread, 999, a.Page(0), 1, 0).Errno)
	})
	t.Run("submit of requests nowhere", func(t *testing.T) {
		r := kit.Me.Call(unix.SYS_IO_SUBMIT, setup(t, kit.Me), 1, a.Page(1))
		assert.Equal(t, unix.EFAULT, r.Errno)
	})
	t.Run("events to nowhere", func(t *testing.T) {
		id := setup(t, kit.Me)
		fd := kit.File(t, 1)
		require.Equal(t, kit.Result{Value: 1}, submit(id, pread, fd, a.Page(0), 1, 0))
		r := kit.Me.Call(unix.SYS_IO_GETEVENTS, id, 1, 1, a.Page(1), 0)
		assert.Equal(t, unix.EFAULT, r.Errno)
	})
}

func TestUnmappedRingIsNoContext(t *testing.T) {
	id := setup(t, kit.Me)
	line := ring(t, id)[0]
	require.Zero(t, kit.Me.Munmap(id, line.End-line.Start))
	assert.Equal(t, unix.EINVAL, poll(id).Errno)
}

func TestMovedRingHasAnotherName(t *testing.T) {
	a := kit.NewArena(t, 64)
	id := setup(t, kit.Me)
	line := ring(t, id)[0]
	length := line.End - line.Start
	require.LessOrEqual(t, length, kit.Len(64))
	r := kit.Me.Mremap(id, length, length, unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, a.Page(0))
	require.Equal(t, kit.Result{Value: a.Page(0)}, r)
	assert.Equal(t, unix.EINVAL, poll(id).Errno)
	works(t, a.Page(0))
	assert.Zero(t, destroy(a.Page(0)))
	assert.Empty(t, a.Layout(t, kit.Me), "io_destroy unmaps the ring")
}

func TestRingCannotBeResized(t *testing.T) {
	for name, length := range map[string]func(uintptr) (uintptr, uintptr){
		"grown":       func(n uintptr) (uintptr, uintptr) { return n, n + kit.Len(1) },
		"old size 0":  func(n uintptr) (uintptr, uintptr) { return 0, n },
		"moved, kept": func(n uintptr) (uintptr, uintptr) { return n, n },
	} {
		t.Run(name, func(t *testing.T) {
			id := setup(t, kit.Me)
			line := ring(t, id)[0]
			before, after := length(line.End - line.Start)
			flags := unix.MREMAP_MAYMOVE
			if name == "moved, kept" {
				flags |= unix.MREMAP_DONTUNMAP
			}
			r := kit.Me.Mremap(id, before, after, flags, 0)
			assert.False(t, r.OK())
			kit.Say(t, "%s", kit.ErrnoName(r.Errno))
			works(t, id)
		})
	}
}

func TestReplacedRingIsNoContext(t *testing.T) {
	id := setup(t, kit.Me)
	line := ring(t, id)[0]
	flags := unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_FIXED
	require.True(t, kit.Me.Mmap(id, line.End-line.Start, unix.PROT_NONE, flags, -1, 0).OK())
	assert.Equal(t, unix.EINVAL, poll(id).Errno)
	assert.Equal(t, unix.EINVAL, destroy(id))
	assert.Equal(t, "SIGSEGV/ACCERR", kit.Me.Load(id).SignalName(), "what replaced it is still there")
	require.Zero(t, kit.Me.Munmap(id, line.End-line.Start))
}

func TestChildHasNoContexts(t *testing.T) {
	id := setup(t, kit.Me)
	events := kit.Shared(t, kit.PageSize)
	child := kit.Fork(t)
	r := child.Call(unix.SYS_IO_GETEVENTS, id, 0, 1, uintptr(unsafe.Pointer(&events[0])), 0)
	assert.Equal(t, unix.EINVAL, r.Errno)
	assert.Equal(t, unix.EINVAL, child.Call(unix.SYS_IO_DESTROY, id).Errno)
	works(t, id)
}

func TestRequestsUseMappings(t *testing.T) {
	kit.EachDir(t, func(t *testing.T, d kit.Dir) {
		a := kit.NewArena(t, 8)
		a.Anon(t, 0, 2, kit.RW, 0)
		id := setup(t, kit.Me)
		fd := d.File(t, 4)
		assert.Equal(t, int64(2*kit.PageSize), transfer(t, id, pread, fd, a.Page(0), kit.Len(2), int64(kit.Len(1))))
		assert.Equal(t, []string{"42", "43"}, a.Bytes(kit.Me, 0, 2))

		// Out of a shared mapping of the file into another place of it.
		a.Map(t, 2, 2, kit.RW, unix.MAP_SHARED, fd, 2)
		assert.Equal(t, int64(kit.PageSize), transfer(t, id, pwrite, fd, a.Page(0), kit.Len(1), int64(kit.Len(3))))
		assert.Equal(t, []string{"43", "42"}, a.Bytes(kit.Me, 2, 2))

		// Into a private mapping, which does not change the file.
		a.Map(t, 4, 1, kit.RW, unix.MAP_PRIVATE, fd, 0)
		assert.Equal(t, int64(1), transfer(t, id, pread, fd, a.Page(4), 1, int64(kit.Len(1))))
		assert.Equal(t, []string{"42"}, a.Bytes(kit.Me, 4, 1))
		a.Map(t, 5, 1, kit.RW, unix.MAP_SHARED, fd, 0)
		assert.Equal(t, []string{"41"}, a.Bytes(kit.Me, 5, 1))
	})
}

func TestRequestsIntoWhatCannotBeWritten(t *testing.T) {
	a := kit.NewArena(t, 8)
	a.Anon(t, 1, 1, unix.PROT_READ, 0)
	a.Anon(t, 2, 1, unix.PROT_NONE, 0)
	a.Anon(t, 4, 1, kit.RW, 0)
	for _, c := range []struct {
		name string
		at   uintptr
	}{{"hole", a.Page(0)}, {"read-only", a.Page(1)}, {"inaccessible", a.Page(2)}, {"after a page", a.Page(4)}} {
		t.Run(c.name, func(t *testing.T) {
			id := setup(t, kit.Me)
			fd := kit.Memfd(t, 2, 0)
			r := submit(id, pread, fd, c.at, kit.Len(2), 0)
			kit.Say(t, "submit %v", r)
			if r.OK() {
				e, _ := collect(id)
				kit.Say(t, "result %d", e.res)
			}
			kit.Say(t, "%v", a.Bytes(kit.Me, 0, 6))
		})
	}
}

func TestVectorsOfARequest(t *testing.T) {
	a := kit.NewArena(t, 4)
	a.Anon(t, 0, 4, kit.RW, 0)
	id := setup(t, kit.Me)
	vectors := [][2]uintptr{{a.Page(3), 2}, {a.Page(1) - 1, 2}}
	got := transfer(t, id, preadv, kit.File(t, 1), kit.Pointer(&vectors[0]), 2, int64(kit.PageSize-4))
	runtime.KeepAlive(vectors)
	assert.Equal(t, int64(4), got)
	assert.Equal(t, []string{"00", "41", "00", "41"}, a.Bytes(kit.Me, 0, 4))
}
