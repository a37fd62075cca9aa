// Claims what lies at the end of a file and beyond it: zeros to the end of the page, then SIGBUS, and what
// truncating and extending do to pages that are mapped.
package mmap

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

const busy = "SIGBUS" // codes of signals are another suite's subject

// eachKind runs a test for private and shared mappings on every file system.
func eachKind(t *testing.T, test func(t *testing.T, d kit.Dir, flags int)) {
	for _, kind := range []struct {
		name  string
		flags int
	}{{"private", unix.MAP_PRIVATE}, {"shared", unix.MAP_SHARED}} {
		t.Run(kind.name, func(t *testing.T) {
			kit.EachDir(t, func(t *testing.T, d kit.Dir) { test(t, d, kind.flags) })
		})
	}
}

func TestBeyondTheEndIsSIGBUS(t *testing.T) {
	eachKind(t, func(t *testing.T, d kit.Dir, flags int) {
		a := kit.NewArena(t, 4)
		a.Map(t, 0, 4, rw, flags, d.File(t, 2), 0)
		kit.Say(t, "%v", a.Bytes(kit.Me, 0, 4))
		assert.Equal(t, []string{"41", "42", busy, busy}, a.Bytes(kit.Me, 0, 4))
		got := kit.Me.Store(a.Page(2)+5, 1)
		kit.Say(t, "%s", a.Where(got.Addr))
		assert.Equal(t, unix.SIGBUS, got.Signal)
		assert.Equal(t, "p2+0x5", a.Where(got.Addr))
	})
}

func TestMappingThatBeginsBeyondTheEnd(t *testing.T) {
	eachKind(t, func(t *testing.T, d kit.Dir, flags int) {
		a := kit.NewArena(t, 1)
		fd := d.File(t, 1)
		a.Map(t, 0, 1, rw, flags, fd, 5)
		kit.Say(t, "%v", a.Bytes(kit.Me, 0, 1))
		assert.Equal(t, []string{busy}, a.Bytes(kit.Me, 0, 1))
		assert.Equal(t, int64(kit.PageSize), size(t, fd), "mapping does not extend the file")
	})
}

func TestMappingOfAnEmptyFile(t *testing.T) {
	eachKind(t, func(t *testing.T, d kit.Dir, flags int) {
		a := kit.NewArena(t, 1)
		a.Map(t, 0, 1, ro, flags, d.File(t, 0), 0)
		assert.Equal(t, []string{busy}, a.Bytes(kit.Me, 0, 1))
	})
}

// A system call that is given memory beyond the end fails; it raises no signal.
func TestSystemCallBeyondTheEnd(t *testing.T) {
	eachKind(t, func(t *testing.T, d kit.Dir, flags int) {
		a := kit.NewArena(t, 2)
		a.Map(t, 0, 2, rw, flags, d.File(t, 1), 0)
		r, w := kit.Pipe(t)
		got := kit.Me.Write(w, a.Page(1), 1)
		kit.Say(t, "write: %v", got)
		assert.Equal(t, unix.EFAULT, got.Errno)
		_, err := unix.Write(w, make([]byte, 2))
		require.NoError(t, err)
		got = kit.Me.Read(r, a.Page(1), 2)
		kit.Say(t, "read: %v", got)
		assert.Equal(t, unix.EFAULT, got.Errno)
	})
}

// A call that begins before the end stops there.
func TestSystemCallAcrossTheEnd(t *testing.T) {
	eachKind(t, func(t *testing.T, d kit.Dir, flags int) {
		a := kit.NewArena(t, 2)
		a.Map(t, 0, 2, rw, flags, d.File(t, 1), 0)
		fd := kit.Memfd(t, 0, 0)
		got := kit.Me.Write(fd, a.Page(1)-100, 200)
		kit.Say(t, "%d", int64(got.Value))
		assert.Equal(t, kit.Result{Value: 100}, got)
	})
}

// partial is a file that ends 100 bytes into its second page.
func partial(t testing.TB, d kit.Dir) int {
	t.Helper()
	fd := d.File(t, 2)
	require.NoError(t, unix.Ftruncate(fd, int64(kit.PageSize)+100))
	return fd
}

func TestTailOfTheLastPageIsZero(t *testing.T) {
	eachKind(t, func(t *testing.T, d kit.Dir, flags int) {
		a := kit.NewArena(t, 2)
		a.Map(t, 0, 2, ro, flags, partial(t, d), 0)
		kit.Say(t, "%v %v", kit.Me.Load(a.Page(1)+99), kit.Me.Load(a.Page(1)+100))
		for i, b := range a.Memory(1, 1) {
			want := byte(0)
			if i < 100 {
				want = kit.PageByte(1)
			}
			require.Equal(t, want, b, "byte %d", i)
		}
	})
}

// What is written there reaches neither the file nor who extends it.
func TestStoreInTheTailIsNotInTheFile(t *testing.T) {
	eachKind(t, func(t *testing.T, d kit.Dir, flags int) {
		a := kit.NewArena(t, 2)
		fd := partial(t, d)
		a.Map(t, 0, 2, rw, flags, fd, 0)
		assert.False(t, kit.Me.Store(a.Page(1)+200, 7).Faulted())
		assert.Equal(t, int64(kit.PageSize)+100, size(t, fd))
		kit.Say(t, "at the end: %s", fileByte(t, fd, int64(kit.PageSize)+100))
		assert.Equal(t, "end", fileByte(t, fd, int64(kit.PageSize)+100))
		require.Zero(t, kit.Me.Msync(a.Base, kit.Len(2), unix.MS_SYNC))
		assert.Equal(t, int64(kit.PageSize)+100, size(t, fd))
	})
}

func TestExtendedFileIsAccessible(t *testing.T) {
	eachKind(t, func(t *testing.T, d kit.Dir, flags int) {
		a := kit.NewArena(t, 4)
		fd := d.File(t, 1)
		a.Map(t, 0, 4, rw, flags, fd, 0)
		assert.Equal(t, []string{"41", busy, busy, busy}, a.Bytes(kit.Me, 0, 4))
		require.NoError(t, unix.Ftruncate(fd, int64(kit.Len(2))))
		assert.Equal(t, []string{"41", "00", busy, busy}, a.Bytes(kit.Me, 0, 4))
		write(t, fd, int64(kit.Len(2)), 9)
		kit.Say(t, "%v", a.Bytes(kit.Me, 0, 4))
		assert.Equal(t, []string{"41", "00", "09", busy}, a.Bytes(kit.Me, 0, 4))
	})
}

func TestTruncatedFileIsNot(t *testing.T) {
	eachKind(t, func(t *testing.T, d kit.Dir, flags int) {
		for name, touch := range map[string]func(a *kit.Arena){
			"untouched": func(*kit.Arena) {},
			"loaded":    func(a *kit.Arena) { a.Bytes(kit.Me, 0, 4) },
			"stored":    func(a *kit.Arena) { a.Fill(t, 0, 4, 7) },
		} {
			t.Run(name, func(t *testing.T) {
				a := kit.NewArena(t, 4)
				fd := d.File(t, 4)
				a.Map(t, 0, 4, rw, flags, fd, 0)
				touch(a)
				require.NoError(t, unix.Ftruncate(fd, int64(kit.Len(2))))
				kit.Say(t, "%v", a.Bytes(kit.Me, 0, 4))
				// Private copies of pages are lost too.
				assert.Equal(t, []string{busy, busy}, a.Bytes(kit.Me, 2, 2))
				assert.NotContains(t, a.Bytes(kit.Me, 0, 2), busy)
				assert.Len(t, a.Maps(t, kit.Me), 1, "the mapping itself stays")
			})
		}
	})
}

// A page that comes back after truncating has forgotten everything.
func TestTruncatedAndExtendedIsZero(t *testing.T) {
	eachKind(t, func(t *testing.T, d kit.Dir, flags int) {
		a := kit.NewArena(t, 2)
		fd := d.File(t, 2)
		a.Map(t, 0, 2, rw, flags, fd, 0)
		a.Fill(t, 0, 2, 7)
		require.NoError(t, unix.Ftruncate(fd, 0))
		require.NoError(t, unix.Ftruncate(fd, int64(kit.Len(2))))
		kit.Say(t, "%v", a.Bytes(kit.Me, 0, 2))
		assert.Equal(t, []string{"00", "00"}, a.Bytes(kit.Me, 0, 2))
	})
}

// Truncating inside a page zeroes the rest of it for shared mappings, and leaves private copies alone.
func TestTruncateInsideAPage(t *testing.T) {
	eachKind(t, func(t *testing.T, d kit.Dir, flags int) {
		a := kit.NewArena(t, 1)
		fd := d.File(t, 1)
		a.Map(t, 0, 1, rw, flags, fd, 0)
		kit.Me.Store(a.Base+200, 7)
		require.NoError(t, unix.Ftruncate(fd, 100))
		got := kit.Me.Load(a.Base + 200)
		kit.Say(t, "%v", got)
		want := uint64(0)
		if flags == unix.MAP_PRIVATE {
			want = 7
		}
		assert.Equal(t, want, got.Value)
		assert.Equal(t, uint64('A'), kit.Me.Load(a.Base+99).Value)
	})
}

// Truncation is seen by every process and every thread.
func TestTruncationIsSeenEverywhere(t *testing.T) {
	eachKind(t, func(t *testing.T, d kit.Dir, flags int) {
		a := kit.NewArena(t, 2)
		fd := d.File(t, 2)
		a.Map(t, 0, 2, rw, flags, fd, 0)
		a.Fill(t, 0, 2, 7)
		child, thread := kit.Fork(t), kit.NewThread(t)
		child.Store(a.Page(1), 8)
		require.NoError(t, unix.Ftruncate(fd, int64(kit.PageSize)))
		assert.Equal(t, []string{"07", busy}, a.Bytes(child, 0, 2))
		assert.Equal(t, []string{"07", busy}, a.Bytes(thread, 0, 2))
	})
}

// O_TRUNC is truncation.
func TestOpenWithTruncation(t *testing.T) {
	eachKind(t, func(t *testing.T, d kit.Dir, flags int) {
		a := kit.NewArena(t, 1)
		path := d.NamedFile(t, 1)
		a.Map(t, 0, 1, rw, flags, kit.Open(t, path, unix.O_RDWR), 0)
		a.Fill(t, 0, 1, 7)
		kit.Open(t, path, unix.O_RDWR|unix.O_TRUNC)
		kit.Say(t, "%v", a.Bytes(kit.Me, 0, 1))
		assert.Equal(t, []string{busy}, a.Bytes(kit.Me, 0, 1))
	})
}

// A hole punched in the file reads as zero; private copies of its pages stay.
func TestPunchedHole(t *testing.T) {
	eachKind(t, func(t *testing.T, d kit.Dir, flags int) {
		a := kit.NewArena(t, 3)
		fd := d.File(t, 3)
		a.Map(t, 0, 3, rw, flags, fd, 0)
		a.Fill(t, 0, 3, 7)
		err := unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(kit.Len(1)), int64(kit.Len(1)))
		if err == unix.EOPNOTSUPP {
			t.Skip("this file system has no holes to punch")
		}
		require.NoError(t, err)
		kit.Say(t, "%v", a.Bytes(kit.Me, 0, 3))
		want := []string{"07", "00", "09"}
		if flags == unix.MAP_PRIVATE {
			want = []string{"07", "08", "09"}
		}
		assert.Equal(t, want, a.Bytes(kit.Me, 0, 3))
	})
}
