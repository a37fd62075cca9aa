// These tests claim that I/O that is under way into memory which is forked meanwhile ends up in the parent,
// which asked for it, and that the child has what was there before or after, and keeps it.
package fork

import (
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

func TestBlockedRead(t *testing.T) {
	for _, c := range []struct {
		name  string
		flags int
		child string
	}{
		{"private", unix.MAP_PRIVATE | unix.MAP_ANONYMOUS, "01"},
		{"locked", unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_LOCKED, "01"},
		{"shared", unix.MAP_SHARED | unix.MAP_ANONYMOUS, "64"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := kit.NewArena(t, 1)
			a.Map(t, 0, 1, kit.RW, c.flags, -1, 0)
			a.Fill(t, 0, 1, 1)
			r, w := kit.Pipe(t)
			reader := kit.NewThread(t)
			wait := reader.Start(unix.SYS_READ, uintptr(r), a.Page(0), 1)
			reader.AwaitBlocked(t)
			child := kit.Fork(t)
			_, err := unix.Write(w, []byte("d"))
			require.NoError(t, err)
			assert.Equal(t, kit.Result{Value: 1}, wait())
			assert.Equal(t, "64", contents(a, kit.Me, 0, 1))
			assert.Equal(t, c.child, contents(a, child, 0, 1))
		})
	}
}

// The child was forked while its parent's thread was reading, and takes no part in it.
func TestBlockedReadOfAChild(t *testing.T) {
	a := kit.NewArena(t, 1)
	a.Anon(t, 0, 1, kit.RW, 0)
	a.Fill(t, 0, 1, 1)
	r, w := kit.Pipe(t)
	child := kit.Fork(t)
	wait := child.Start(unix.SYS_READ, uintptr(r), a.Page(0), 1)
	child.AwaitBlocked(t)
	other := kit.Fork(t)
	_, err := unix.Write(w, []byte("d"))
	require.NoError(t, err)
	assert.Equal(t, kit.Result{Value: 1}, wait())
	assert.Equal(t, "64", contents(a, child, 0, 1))
	assert.Equal(t, "01", contents(a, kit.Me, 0, 1))
	assert.Equal(t, "01", contents(a, other, 0, 1))
}

// directFile is a file on disk opened for reading past the page cache.
func directFile(t *testing.T, pages int) int {
	t.Helper()
	path := kit.Dirs()[0].NamedFile(t, pages)
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err == unix.EINVAL {
		t.Skip("a file system without O_DIRECT")
	}
	require.NoError(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// reading is I/O from a thing into pages [0, n) of an arena, over and over, while others fork.
type reading struct {
	name string
	// start prepares it, and returns what does it once.
	start func(t *testing.T, a *kit.Arena, n int) func() bool
}

var readings = []reading{
	{"O_DIRECT", func(t *testing.T, a *kit.Arena, n int) func() bool {
		fd := directFile(t, n)
		return func() bool {
			r := kit.Me.Call(unix.SYS_PREAD64, uintptr(fd), a.Page(0), kit.Len(n), 0)
			return r.OK() && r.Value == kit.Len(n)
		}
	}},
	{"read", func(t *testing.T, a *kit.Arena, n int) func() bool {
		fd := kit.File(t, n)
		return func() bool {
			r := kit.Me.Call(unix.SYS_PREAD64, uintptr(fd), a.Page(0), kit.Len(n), 0)
			return r.OK() && r.Value == kit.Len(n)
		}
	}},
	{"AIO", func(t *testing.T, a *kit.Arena, n int) func() bool {
		fd := directFile(t, n)
		// Outside of Go's memory, where a stack could move between here and the kernel.
		aio := (*aioMemory)(unsafe.Pointer(&kit.Shared(t, kit.PageSize)[0]))
		require.Zero(t, kit.Me.Call(unix.SYS_IO_SETUP, 4, uintptr(unsafe.Pointer(&aio.ctx))).Errno)
		t.Cleanup(func() { kit.Me.Call(unix.SYS_IO_DESTROY, aio.ctx) })
		return func() bool { return aio.read(fd, a.Page(0), kit.Len(n)) }
	}},
	{"process_vm_readv", func(t *testing.T, a *kit.Arena, n int) func() bool {
		fd := kit.File(t, n)
		source := a.Pages - n
		a.Map(t, source, n, unix.PROT_READ, unix.MAP_SHARED, fd, 0)
		return func() bool {
			local := []unix.Iovec{{Base: &a.Memory(0, 1)[0], Len: uint64(kit.Len(n))}}
			remote := []unix.RemoteIovec{{Base: a.Page(source), Len: int(kit.Len(n))}}
			got, err := unix.ProcessVMReadv(kit.Me.Pid(), local, remote, 0)
			return err == nil && got == int(kit.Len(n))
		}
	}},
}

// An aioRequest is struct iocb, and an aioEvent struct io_event.
type (
	aioRequest struct {
		data               uint64
		key, rwFlags       uint32
		op                 uint16
		priority           int16
		fd                 uint32
		buf, bytes, offset uint64
		reserved           uint64
		flags, resultFd    uint32
	}
	aioEvent struct {
		data, request uint64
		result, more  int64
	}
)

// aioMemory is what the kernel is given pointers to.
type aioMemory struct {
	ctx     uintptr
	pointer uintptr // to request
	request aioRequest
	event   aioEvent
}

// read reads the start of a file by one asynchronous request.
func (m *aioMemory) read(fd int, addr, length uintptr) bool {
	m.request = aioRequest{fd: uint32(fd), buf: uint64(addr), bytes: uint64(length)}
	m.pointer = uintptr(unsafe.Pointer(&m.request))
	if r := kit.Me.Call(unix.SYS_IO_SUBMIT, m.ctx, 1, uintptr(unsafe.Pointer(&m.pointer))); r.Value != 1 || !r.OK() {
		return false
	}
	r := kit.Me.Call(unix.SYS_IO_GETEVENTS, m.ctx, 1, 1, uintptr(unsafe.Pointer(&m.event)), 0)
	return r.OK() && r.Value == 1 && m.event.result == int64(length)
}

// What the parent reads is all there, though each page may become copy-on-write in the middle of it, and
// processes that share it come and go.
func TestParentGetsAllItReads(t *testing.T) {
	const n = 8
	for _, kind := range readings {
		t.Run(kind.name, func(t *testing.T) {
			a := kit.NewArena(t, 3*n)
			a.Anon(t, 0, n, kit.RW, 0)
			read := kind.start(t, a, n)
			var failed, wrong atomic.Int64
			once := func(int, uint64) {
				for i := range n {
					atomic.StoreUint64(word(a, i), 0)
				}
				if !read() {
					failed.Add(1)
				}
				for i := range n {
					if byte(atomic.LoadUint64(word(a, i))) != kit.PageByte(i) {
						wrong.Add(1)
					}
				}
			}
			whileWriting(1, once, func() {
				for range rounds() {
					child := kit.Fork(t)
					for i := range n {
						v := byte(child.Load64(a.Page(i)).Value)
						require.Contains(t, []byte{0, kit.PageByte(i)}, v, "page %d of the child", i)
						require.Equal(t, v, byte(child.Load64(a.Page(i)).Value), "the child's page does not change")
					}
					child.Exit(t, 0)
				}
			})
			assert.Zero(t, failed.Load(), "reads that failed")
			assert.Zero(t, wrong.Load(), "pages that the parent did not get")
		})
	}
}
