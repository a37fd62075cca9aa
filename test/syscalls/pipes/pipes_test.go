// Package pipes claims of read(2), write(2) and their kin: they use what is mapped at their buffer when they
// copy, not when they were called, and copy what they can up to a page that they may not use.
package pipes

import (
	"bytes"
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

func TestMain(m *testing.M) { kit.Main(m) }

const fixed = unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_FIXED

// replaceBlocked calls change while a thread is blocked in read(2) from an empty pipe into pages 0 and 1, and
// then lets two pages of bytes 0x77 arrive.
func replaceBlocked(t *testing.T, change func(a *kit.Arena)) (*kit.Arena, kit.Result) {
	a := kit.NewArena(t, 4)
	a.Anon(t, 0, 2, kit.RW, 0)
	a.Fill(t, 0, 2, 1)
	r, w := kit.Pipe(t)
	reader := kit.NewThread(t)
	wait := reader.Start(unix.SYS_READ, uintptr(r), a.Page(0), kit.Len(2))
	reader.AwaitBlocked(t)
	change(a)
	n, err := unix.Write(w, bytes.Repeat([]byte{0x77}, int(kit.Len(2))))
	require.NoError(t, err)
	require.Equal(t, int(kit.Len(2)), n)
	return a, wait()
}

func TestBlockedReadFillsWhatReplacedItsBuffer(t *testing.T) {
	memfd := kit.Memfd(t, 2, 0)
	changes := map[string]func(a *kit.Arena){
		"anonymous": func(a *kit.Arena) { a.Anon(t, 0, 2, kit.RW, 0) },
		"shared file": func(a *kit.Arena) {
			a.Map(t, 0, 2, kit.RW, unix.MAP_SHARED, memfd, 0)
		},
		"in part": func(a *kit.Arena) { a.Anon(t, 1, 1, kit.RW, 0) },
		"moved away and mapped anew": func(a *kit.Arena) {
			require.True(t, kit.Me.Mremap(a.Page(0), kit.Len(2), kit.Len(2), unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, a.Page(2)).OK())
			a.Anon(t, 0, 2, kit.RW, 0)
		},
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			a, r := replaceBlocked(t, change)
			assert.Equal(t, kit.Result{Value: kit.Len(2)}, r)
			assert.Equal(t, []string{"77", "77"}, a.Bytes(kit.Me, 0, 2))
			kit.Say(t, "%v", a.Bytes(kit.Me, 0, 4))
		})
	}
	var content [1]byte
	_, err := unix.Pread(memfd, content[:], 0)
	require.NoError(t, err)
	assert.Equal(t, byte(0x77), content[0], "what read(2) put into a shared mapping is in the file")
}

func TestBlockedReadIntoWhatIsGone(t *testing.T) {
	changes := map[string]func(a *kit.Arena){
		"unmapped":  func(a *kit.Arena) { require.Zero(t, kit.Me.Munmap(a.Page(0), kit.Len(2))) },
		"read-only": func(a *kit.Arena) { require.Zero(t, kit.Me.Mprotect(a.Page(0), kit.Len(2), unix.PROT_READ)) },
		"moved": func(a *kit.Arena) {
			require.True(t, kit.Me.Mremap(a.Page(0), kit.Len(2), kit.Len(2), unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, a.Page(2)).OK())
		},
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			a, r := replaceBlocked(t, change)
			assert.Equal(t, unix.EFAULT, r.Errno)
			kit.Say(t, "%v", a.Bytes(kit.Me, 0, 4))
		})
	}
}

func TestBlockedWriteContinuesWithWhatReplacedItsBuffer(t *testing.T) {
	a := kit.NewArena(t, 2)
	a.Anon(t, 0, 2, kit.RW, 0)
	a.Fill(t, 0, 2, 1)
	r, w := kit.Pipe(t)
	_, err := unix.FcntlInt(uintptr(w), unix.F_SETPIPE_SZ, kit.PageSize)
	require.NoError(t, err)
	writer := kit.NewThread(t)
	wait := writer.Start(unix.SYS_WRITE, uintptr(w), a.Page(0), kit.Len(2))
	writer.AwaitBlocked(t)
	// One page is in the pipe. The second is replaced before there is room for it.
	a.Anon(t, 0, 2, kit.RW, 0)
	a.Fill(t, 0, 2, 0x61)
	data := make([]byte, 2*kit.PageSize)
	for n := 0; n < len(data); {
		k, err := unix.Read(r, data[n:])
		require.NoError(t, err)
		n += k
	}
	assert.Equal(t, kit.Result{Value: kit.Len(2)}, wait())
	assert.Equal(t, byte(1), data[0])
	assert.Equal(t, byte(0x62), data[kit.PageSize])
}

// Buffers of two pages of which the second cannot be used. before is how far before the border they begin.
func TestPartialCopies(t *testing.T) {
	spoil := map[string]func(t *testing.T, a *kit.Arena){
		"hole":         func(t *testing.T, a *kit.Arena) { require.Zero(t, kit.Me.Munmap(a.Page(1), kit.Len(1))) },
		"inaccessible": func(t *testing.T, a *kit.Arena) { require.Zero(t, kit.Me.Mprotect(a.Page(1), kit.Len(1), 0)) },
		"read-only": func(t *testing.T, a *kit.Arena) {
			require.Zero(t, kit.Me.Mprotect(a.Page(1), kit.Len(1), unix.PROT_READ))
		},
		"after the file": func(t *testing.T, a *kit.Arena) {
			a.Map(t, 0, 2, kit.RW, unix.MAP_SHARED, kit.Memfd(t, 1, 0), 0)
		},
	}
	for name, change := range spoil {
		for _, before := range []int{0, 1, 100, kit.PageSize} {
			for _, call := range []string{"write", "read", "pwrite", "pread"} {
				t.Run(name+"/"+call+"/"+sizeName(before), func(t *testing.T) {
					a := kit.NewArena(t, 2)
					a.Anon(t, 0, 2, kit.RW, 0)
					change(t, a)
					at := a.Page(1) - uintptr(before)
					result := transfer(t, call, at, uintptr(before+10))
					kit.Say(t, "%v", result)
					if result.OK() {
						assert.LessOrEqual(t, result.Value, uintptr(before+10))
					} else {
						assert.Equal(t, unix.EFAULT, result.Errno)
					}
				})
			}
		}
	}
}

func sizeName(n int) string {
	return map[int]string{0: "all of it", 1: "after a byte", 100: "after 100 bytes", kit.PageSize: "after a page"}[n]
}

// transfer copies between a pipe or a file that has enough and a buffer.
func transfer(t *testing.T, call string, at, length uintptr) kit.Result {
	switch call {
	case "pread", "pwrite":
		fd := kit.Memfd(t, 4, 0)
		nr := map[string]uintptr{"pread": unix.SYS_PREAD64, "pwrite": unix.SYS_PWRITE64}[call]
		return kit.Me.Call(nr, uintptr(fd), at, length, 0)
	case "read":
		r, w := kit.Pipe(t)
		_, err := unix.Write(w, make([]byte, length))
		require.NoError(t, err)
		return kit.Me.Read(r, at, length)
	}
	_, w := kit.Pipe(t)
	return kit.Me.Write(w, at, length)
}

func TestVectorsOverSeveralMappings(t *testing.T) {
	a := kit.NewArena(t, 8)
	memfd := kit.Memfd(t, 4, 0)
	a.Anon(t, 0, 1, kit.RW, 0)
	a.Map(t, 1, 1, kit.RW, unix.MAP_SHARED, memfd, 2)
	a.Map(t, 2, 1, kit.RW, unix.MAP_PRIVATE, memfd, 1)
	a.Fill(t, 0, 1, 0x11)
	// struct iovec: address, length.
	vectors := [][2]uintptr{{a.Page(2), 3}, {a.Page(0), 2}, {a.Page(1) - 1, 2}}
	r, w := kit.Pipe(t)
	result := kit.Me.Call(unix.SYS_WRITEV, uintptr(w), kit.Pointer(&vectors[0]), 3)
	runtime.KeepAlive(vectors)
	require.Equal(t, kit.Result{Value: 7}, result)
	data := make([]byte, 7)
	_, err := unix.Read(r, data)
	require.NoError(t, err)
	assert.Equal(t, []byte{'B', 'B', 'B', 0x11, 0, 0, 'C'}, data)

	_, err = unix.Write(w, []byte("abcdefg"))
	require.NoError(t, err)
	result = kit.Me.Call(unix.SYS_READV, uintptr(r), kit.Pointer(&vectors[0]), 3)
	runtime.KeepAlive(vectors)
	require.Equal(t, kit.Result{Value: 7}, result)
	assert.Equal(t, []string{"64", "67", "61"}, a.Bytes(kit.Me, 0, 3))
	file := make([]byte, 1)
	_, err = unix.Pread(memfd, file, int64(kit.Len(2)))
	require.NoError(t, err)
	assert.Equal(t, byte('g'), file[0], "the shared mapping's byte is the file's")
	_, err = unix.Pread(memfd, file, int64(kit.Len(1)))
	require.NoError(t, err)
	assert.Equal(t, byte('B'), file[0], "the private mapping's is not")
}

// A file is read into a mapping of itself, and written out of one.
func TestFileIntoItsOwnMapping(t *testing.T) {
	kit.EachDir(t, func(t *testing.T, d kit.Dir) {
		fd := d.File(t, 4)
		a := kit.NewArena(t, 4)
		a.Map(t, 0, 4, kit.RW, unix.MAP_SHARED, fd, 0)
		r := kit.Me.Call(unix.SYS_PREAD64, uintptr(fd), a.Page(1), kit.Len(1), 0)
		assert.Equal(t, kit.Result{Value: kit.Len(1)}, r)
		r = kit.Me.Call(unix.SYS_PWRITE64, uintptr(fd), a.Page(3), kit.Len(1), kit.Len(2))
		assert.Equal(t, kit.Result{Value: kit.Len(1)}, r)
		assert.Equal(t, []string{"41", "41", "44", "44"}, a.Bytes(kit.Me, 0, 4))
	})
}

// What is read into a private mapping of a file is not in the file.
func TestReadBreaksCopyOnWrite(t *testing.T) {
	kit.EachDir(t, func(t *testing.T, d kit.Dir) {
		fd := d.File(t, 2)
		a := kit.NewArena(t, 4)
		a.Map(t, 0, 2, kit.RW, unix.MAP_PRIVATE, fd, 0)
		a.Map(t, 2, 2, kit.RW, unix.MAP_SHARED, fd, 0)
		r, w := kit.Pipe(t)
		_, err := unix.Write(w, []byte("xyz"))
		require.NoError(t, err)
		assert.Equal(t, kit.Result{Value: 3}, kit.Me.Read(r, a.Page(1)-1, 3))
		assert.Equal(t, []string{"41", "79", "41", "42"}, a.Bytes(kit.Me, 0, 4))
	})
}

// A writer reads out of a mapping that another thread keeps replacing, and never finds a gap or a
// byte that is of neither.
func TestWriteOutOfAChangingMapping(t *testing.T) {
	a := kit.NewArena(t, 2)
	a.Anon(t, 0, 2, kit.RW, 0)
	memfd := kit.Memfd(t, 2, 0)
	rounds := 200
	done := make(chan bool)
	go func() {
		defer close(done)
		for i := range rounds {
			if i%2 == 0 {
				kit.Me.Mmap(a.Page(0), kit.Len(2), kit.RW, unix.MAP_SHARED|unix.MAP_FIXED, memfd, 0)
			} else {
				kit.Me.Mmap(a.Page(0), kit.Len(2), kit.RW, fixed, -1, 0)
			}
		}
	}()
	r, w := kit.Pipe(t)
	data := make([]byte, 8)
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		require.Equal(t, kit.Result{Value: 8}, kit.Me.Write(w, a.Page(1)+8, 8))
		_, err := unix.Read(r, data)
		require.NoError(t, err)
		for _, b := range data {
			require.Contains(t, []byte{0, 'B'}, b)
		}
	}
}
