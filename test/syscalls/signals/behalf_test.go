// Where the kernel accesses memory for a process, there is no signal: the call says EFAULT, or how far it
// came.
package signals

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"sentrymm/test/syscalls/kit"
)

// targets are pages that cannot be written to, and sources pages that cannot be read from.
var (
	targets = map[string]int{"hole": hole, "none": none, "read-only": readOnly, "beyond-eof": fileEnd}
	sources = map[string]int{"hole": hole, "none": none, "beyond-eof": fileEnd}
)

func TestBadBuffers(t *testing.T) {
	for name, page := range targets {
		t.Run("read-into-"+name, func(t *testing.T) {
			a, _ := stage(t)
			fd := kit.File(t, 1)
			assert.Equal(t, unix.EFAULT, kit.Me.Read(fd, a.Page(page), 10).Errno)
			at, err := unix.Seek(fd, 0, unix.SEEK_CUR)
			require.NoError(t, err)
			assert.Zero(t, at, "nothing was read")
		})
		t.Run("read-pipe-into-"+name, func(t *testing.T) {
			a, _ := stage(t)
			r, w := kit.Pipe(t)
			_, err := unix.Write(w, []byte("hello"))
			require.NoError(t, err)
			assert.Equal(t, unix.EFAULT, kit.Me.Read(r, a.Page(page), 5).Errno)
			got := make([]byte, 10)
			n, err := unix.Read(r, got)
			require.NoError(t, err)
			assert.Equal(t, "hello", string(got[:n]), "it is still there")
		})
		t.Run("getrandom-into-"+name, func(t *testing.T) {
			a, _ := stage(t)
			assert.Equal(t, unix.EFAULT, kit.Me.Call(unix.SYS_GETRANDOM, a.Page(page), 16, 0).Errno)
		})
		t.Run("fstat-into-"+name, func(t *testing.T) {
			a, _ := stage(t)
			assert.Equal(t, unix.EFAULT, kit.Me.Call(unix.SYS_FSTAT, uintptr(kit.File(t, 1)), a.Page(page)).Errno)
		})
	}
	for name, page := range sources {
		t.Run("write-from-"+name, func(t *testing.T) {
			a, _ := stage(t)
			fd := kit.File(t, 1)
			assert.Equal(t, unix.EFAULT, kit.Me.Write(fd, a.Page(page), 10).Errno)
			got := make([]byte, 1)
			_, err := unix.Pread(fd, got, 0)
			require.NoError(t, err)
			assert.Equal(t, kit.PageByte(0), got[0], "nothing was written")
		})
		t.Run("write-pipe-from-"+name, func(t *testing.T) {
			a, _ := stage(t)
			_, w := kit.Pipe(t)
			assert.Equal(t, unix.EFAULT, kit.Me.Write(w, a.Page(page), 10).Errno)
		})
		t.Run("path-at-"+name, func(t *testing.T) {
			a, _ := stage(t)
			assert.Equal(t, unix.EFAULT, kit.Me.Call(unix.SYS_FACCESSAT, 0, a.Page(page), 0).Errno)
		})
	}
}

// What is transferred before the bad page counts.
func TestPartialTransfers(t *testing.T) {
	kit.EachDir(t, func(t *testing.T, d kit.Dir) {
		half := kit.Len(1) / 2
		t.Run("read", func(t *testing.T) {
			a := kit.NewArena(t, 4)
			a.Anon(t, 1, 1, kit.RW, 0)
			fd := d.File(t, 4)
			r := kit.Me.Read(fd, a.Page(1), kit.Len(2))
			assert.Equal(t, kit.Result{Value: kit.Len(1)}, r)
			at, err := unix.Seek(fd, 0, unix.SEEK_CUR)
			require.NoError(t, err)
			assert.EqualValues(t, kit.Len(1), at)
			assert.EqualValues(t, kit.PageByte(0), kit.Me.Load(a.Page(2)-1).Value)
		})
		t.Run("read-from-the-middle", func(t *testing.T) {
			a := kit.NewArena(t, 4)
			a.Anon(t, 1, 1, kit.RW, 0)
			kit.Say(t, "%s", kit.Me.Read(d.File(t, 4), a.Page(1)+half, kit.Len(1)))
			assert.EqualValues(t, kit.PageByte(0), kit.Me.Load(a.Page(1)+half).Value)
		})
		t.Run("write", func(t *testing.T) {
			a := kit.NewArena(t, 4)
			a.Anon(t, 1, 1, kit.RW, 0)
			a.Fill(t, 1, 1, 0x11)
			fd := d.File(t, 0)
			assert.Equal(t, kit.Result{Value: kit.Len(1)}, kit.Me.Write(fd, a.Page(1), kit.Len(2)))
			var stat unix.Stat_t
			require.NoError(t, unix.Fstat(fd, &stat))
			assert.EqualValues(t, kit.Len(1), stat.Size)
		})
		t.Run("write-from-the-middle", func(t *testing.T) {
			a := kit.NewArena(t, 4)
			a.Anon(t, 1, 1, kit.RW, 0)
			fd := d.File(t, 0)
			r := kit.Me.Write(fd, a.Page(1)+half, kit.Len(1))
			var stat unix.Stat_t
			require.NoError(t, unix.Fstat(fd, &stat))
			kit.Say(t, "%s, size %#x", r, stat.Size)
			if r.OK() {
				assert.EqualValues(t, r.Value, stat.Size)
			}
		})
	})
}

func TestPartialPipes(t *testing.T) {
	a := kit.NewArena(t, 4)
	a.Anon(t, 1, 1, kit.RW, 0)
	for _, c := range []struct {
		name   string
		offset uintptr
	}{{"page", 0}, {"last-bytes", kit.Len(1) - 16}} {
		t.Run("write-"+c.name, func(t *testing.T) {
			_, w := kit.Pipe(t)
			kit.Say(t, "%s", kit.Me.Write(w, a.Page(1)+c.offset, kit.Len(2)))
		})
		t.Run("read-"+c.name, func(t *testing.T) {
			r, w := kit.Pipe(t)
			_, err := unix.Write(w, make([]byte, 2*kit.PageSize))
			require.NoError(t, err)
			kit.Say(t, "%s", kit.Me.Read(r, a.Page(1)+c.offset, kit.Len(2)))
		})
	}
}

// A vector is worked off buffer by buffer.
func TestPartialVectors(t *testing.T) {
	for _, c := range []struct {
		name  string
		pages []int
		want  string
	}{
		{"all-good", []int{1, 2}, "0x20"},
		{"second-bad", []int{1, 5}, "0x10"},
		{"first-bad", []int{5, 1}, "EFAULT"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := kit.NewArena(t, 8)
			a.Anon(t, 0, 3, kit.RW, 0)
			for i, page := range c.pages {
				kit.Me.Store64(a.Page(0)+uintptr(16*i), uint64(a.Page(page)))
				kit.Me.Store64(a.Page(0)+uintptr(16*i)+8, 16)
			}
			fd := kit.File(t, 1)
			assert.Equal(t, c.want, kit.Me.Call(unix.SYS_READV, uintptr(fd), a.Page(0), 2).String())
			assert.Equal(t, c.want, kit.Me.Call(unix.SYS_WRITEV, uintptr(kit.File(t, 0)), a.Page(0), 2).String())
		})
	}
}

// A string ends where it ends: what comes behind it on the next page does not matter, unless it goes on.
func TestPathsAtAPageBorder(t *testing.T) {
	a := kit.NewArena(t, 4)
	a.Anon(t, 1, 1, kit.RW, 0)
	put := func(text string) uintptr {
		addr := a.Page(2) - uintptr(len(text))
		for i := range text {
			require.False(t, kit.Me.Store(addr+uintptr(i), text[i]).Faulted())
		}
		return addr
	}
	open := func(addr uintptr) unix.Errno { return kit.Me.Call(unix.SYS_FACCESSAT, 0, addr, 0).Errno }
	assert.Equal(t, "ok", kit.ErrnoName(open(put("/proc/self\x00"))))
	assert.Equal(t, "EFAULT", kit.ErrnoName(open(put("/proc/self"))))
	assert.Equal(t, "EFAULT", kit.ErrnoName(open(put(strings.Repeat("x", 100)))))
}

// Memory the kernel was to write to and could not raises no signal later.
func TestFailedCallLeavesTheProcessAlone(t *testing.T) {
	actors(t, func(t *testing.T, make func() *kit.Actor) {
		a, _ := stage(t)
		actor := make()
		for range 3 {
			require.Equal(t, unix.EFAULT, actor.Call(unix.SYS_GETRANDOM, a.Page(none), 16, 0).Errno)
		}
		require.False(t, actor.Store(a.Page(writable), 1).Faulted())
	})
}
