// These tests claim how seals and mappings go together: F_SEAL_WRITE waits for none that could be written
// to, F_SEAL_FUTURE_WRITE leaves those there are, and F_SEAL_SHRINK keeps mapped pages from being cut off.
package memfd

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

// mappingsThereAre are those of a sealable file at the moment when F_SEAL_WRITE is added.
var mappingsThereAre = []struct {
	name string
	do   func(t *testing.T, a *kit.Arena, fd int)
	want unix.Errno
}{
	{"none", func(*testing.T, *kit.Arena, int) {}, 0},
	{"shared for writing", mapShared(kit.RW), unix.EBUSY},
	{"shared for reading, could be written to", mapShared(unix.PROT_READ), unix.EBUSY},
	{"shared without access, could be written to", mapShared(unix.PROT_NONE), unix.EBUSY},
	{"shared for reading, of a descriptor for reading", func(t *testing.T, a *kit.Arena, fd int) {
		a.Map(t, 0, 2, unix.PROT_READ, unix.MAP_SHARED, reopened(t, fd, unix.O_RDONLY), 0)
	}, 0},
	{"private", func(t *testing.T, a *kit.Arena, fd int) { a.Map(t, 0, 2, kit.RW, unix.MAP_PRIVATE, fd, 0) }, 0},
	{"protected", func(t *testing.T, a *kit.Arena, fd int) {
		a.Map(t, 0, 2, kit.RW, unix.MAP_SHARED, fd, 0)
		require.Zero(t, kit.Me.Mprotect(a.Page(0), kit.Len(2), unix.PROT_READ))
	}, unix.EBUSY},
	{"unmapped", func(t *testing.T, a *kit.Arena, fd int) {
		a.Map(t, 0, 2, kit.RW, unix.MAP_SHARED, fd, 0)
		require.Zero(t, kit.Me.Munmap(a.Page(0), kit.Len(2)))
	}, 0},
	{"unmapped in part", func(t *testing.T, a *kit.Arena, fd int) {
		a.Map(t, 0, 2, kit.RW, unix.MAP_SHARED, fd, 0)
		require.Zero(t, kit.Me.Munmap(a.Page(0), kit.Len(1)))
	}, unix.EBUSY},
	{"replaced", func(t *testing.T, a *kit.Arena, fd int) {
		a.Map(t, 0, 2, kit.RW, unix.MAP_SHARED, fd, 0)
		a.Anon(t, 0, 2, kit.RW, 0)
	}, 0},
	{"replaced by a private one of the same file", func(t *testing.T, a *kit.Arena, fd int) {
		a.Map(t, 0, 2, kit.RW, unix.MAP_SHARED, fd, 0)
		a.Map(t, 0, 2, kit.RW, unix.MAP_PRIVATE, fd, 0)
	}, 0},
	{"replaced in pieces", func(t *testing.T, a *kit.Arena, fd int) {
		a.Map(t, 0, 2, kit.RW, unix.MAP_SHARED, fd, 0)
		a.Anon(t, 1, 1, kit.RW, 0)
		a.Anon(t, 0, 1, kit.RW, 0)
	}, 0},
	{"moved", func(t *testing.T, a *kit.Arena, fd int) {
		a.Map(t, 0, 2, kit.RW, unix.MAP_SHARED, fd, 0)
		require.True(t, kit.Me.Mremap(a.Page(0), kit.Len(2), kit.Len(2), unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, a.Page(4)).OK())
	}, unix.EBUSY},
	{"moved and unmapped", func(t *testing.T, a *kit.Arena, fd int) {
		a.Map(t, 0, 2, kit.RW, unix.MAP_SHARED, fd, 0)
		require.True(t, kit.Me.Mremap(a.Page(0), kit.Len(2), kit.Len(2), unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, a.Page(4)).OK())
		require.Zero(t, kit.Me.Munmap(a.Page(4), kit.Len(2)))
	}, 0},
	{"grown and unmapped", func(t *testing.T, a *kit.Arena, fd int) {
		a.Map(t, 0, 2, kit.RW, unix.MAP_SHARED, fd, 0)
		require.True(t, kit.Me.Mremap(a.Page(0), kit.Len(2), kit.Len(4), 0, 0).OK())
		require.Zero(t, kit.Me.Munmap(a.Page(0), kit.Len(4)))
	}, 0},
	{"a child's", func(t *testing.T, a *kit.Arena, fd int) {
		a.Map(t, 0, 2, kit.RW, unix.MAP_SHARED, fd, 0)
		kit.Fork(t)
		require.Zero(t, kit.Me.Munmap(a.Page(0), kit.Len(2)))
	}, unix.EBUSY},
	{"of a child that has ended", func(t *testing.T, a *kit.Arena, fd int) {
		a.Map(t, 0, 2, kit.RW, unix.MAP_SHARED, fd, 0)
		kit.Fork(t).Exit(t, 0)
		require.Zero(t, kit.Me.Munmap(a.Page(0), kit.Len(2)))
	}, 0},
	{"failed", func(t *testing.T, a *kit.Arena, fd int) {
		a.Anon(t, 0, 2, kit.RW, 0)
		r := kit.Me.Mmap(a.Page(0), kit.Len(2), kit.RW, unix.MAP_SHARED|unix.MAP_FIXED_NOREPLACE, fd, 0)
		require.Equal(t, unix.EEXIST, r.Errno)
	}, 0}}

// mapShared maps two pages at page 0.
func mapShared(prot int) func(*testing.T, *kit.Arena, int) {
	return func(t *testing.T, a *kit.Arena, fd int) { a.Map(t, 0, 2, prot, unix.MAP_SHARED, fd, 0) }
}

func TestWriteSealAndMappingsThereAre(t *testing.T) {
	for _, c := range mappingsThereAre {
		t.Run(c.name, func(t *testing.T) {
			a := kit.NewArena(t, 6)
			fd := sealable(t, 2)
			c.do(t, a, fd)
			got := seal(fd, unix.F_SEAL_WRITE)
			assert.Equal(t, c.want, got, kit.ErrnoName(got))
			want := ""
			if c.want == 0 {
				want = "WRITE"
			}
			assert.Equal(t, want, seals(t, fd), "a seal that is refused is not there")
			kit.Say(t, "%s", kit.ErrnoName(got))
		})
	}
}

func TestFutureWriteSealLeavesMappingsThereAre(t *testing.T) {
	a := kit.NewArena(t, 6)
	fd := sealable(t, 2)
	a.Map(t, 0, 2, kit.RW, unix.MAP_SHARED, fd, 0)
	mustSeal(t, fd, unix.F_SEAL_FUTURE_WRITE)
	a.Fill(t, 0, 2, 1)
	assert.Equal(t, unix.EPERM, mmap(a, 2, 2, kit.RW, unix.MAP_SHARED, fd))
	require.Zero(t, mmap(a, 2, 2, unix.PROT_READ, unix.MAP_SHARED, fd))
	assert.Equal(t, "01 02 01 02", contents(a, 0, 4))
	assert.Equal(t, unix.EPERM, pwrite(fd, 0))
	assert.Zero(t, kit.Me.Mprotect(a.Page(0), kit.Len(2), unix.PROT_READ))
	assert.Zero(t, kit.Me.Mprotect(a.Page(0), kit.Len(2), kit.RW), "it could be written to and can again")
	child := kit.Fork(t)
	assert.False(t, child.Store(a.Page(0), 9).Faulted(), "the child's could be written to as well")
	assert.Equal(t, "09", contents(a, 2, 1))
}

func TestWriteSealDoesNotTouchPrivateMappings(t *testing.T) {
	a := kit.NewArena(t, 4)
	fd := sealable(t, 2)
	a.Map(t, 0, 2, kit.RW, unix.MAP_PRIVATE, fd, 0)
	a.Fill(t, 0, 1, 1)
	mustSeal(t, fd, unix.F_SEAL_WRITE)
	a.Fill(t, 1, 1, 2)
	a.Map(t, 2, 2, kit.RW, unix.MAP_PRIVATE, fd, 0)
	assert.Equal(t, "01 02 41 42", contents(a, 0, 4))
	a.Fill(t, 2, 2, 3)
	b := []byte{0}
	_, err := unix.Pread(fd, b, 0)
	require.NoError(t, err)
	assert.Equal(t, []byte("A"), b)
	require.Zero(t, kit.Me.Madvise(a.Page(0), kit.Len(4), unix.MADV_DONTNEED))
	assert.Equal(t, "41 42 41 42", contents(a, 0, 4))
}

func TestSealedMappingsCanBeReadMovedAndInherited(t *testing.T) {
	a := kit.NewArena(t, 6)
	fd := sealable(t, 2)
	mustSeal(t, fd, unix.F_SEAL_WRITE|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW)
	a.Map(t, 0, 2, unix.PROT_READ, unix.MAP_SHARED, fd, 0)
	require.True(t, kit.Me.Mremap(a.Page(0), kit.Len(2), kit.Len(2), unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, a.Page(4)).OK())
	assert.Equal(t, "SIGSEGV SIGSEGV SIGSEGV SIGSEGV 41 42", contents(a, 0, 6))
	assert.Equal(t, unix.EACCES, kit.Me.Mprotect(a.Page(4), kit.Len(2), kit.RW))
	assert.Equal(t, []string{"41", "42"}, a.Bytes(kit.Fork(t), 4, 2))
}

func TestRefusedMappingKeepsTheOldOne(t *testing.T) {
	a := kit.NewArena(t, 2)
	fd := sealable(t, 2)
	mustSeal(t, fd, unix.F_SEAL_WRITE)
	a.Anon(t, 0, 2, kit.RW, 0)
	a.Fill(t, 0, 2, 1)
	assert.Equal(t, unix.EPERM, mmap(a, 0, 2, kit.RW, unix.MAP_SHARED, fd))
	assert.Equal(t, "01 02", contents(a, 0, 2))
	assert.Equal(t, []string{"p0-p2 rw-p 0"}, a.Layout(t, kit.Me))
}

// read(2) writes to memory, and not to what is mapped for reading only.
func TestReadIntoSealedMemoryFails(t *testing.T) {
	a := kit.NewArena(t, 2)
	fd := sealable(t, 2)
	mustSeal(t, fd, unix.F_SEAL_WRITE)
	a.Map(t, 0, 2, unix.PROT_READ, unix.MAP_SHARED, fd, 0)
	r, w := kit.Pipe(t)
	_, err := unix.Write(w, []byte("x"))
	require.NoError(t, err)
	assert.Equal(t, unix.EFAULT, kit.Me.Read(r, a.Page(0), 1).Errno)
	assert.Equal(t, "41 42", contents(a, 0, 2))
}

func TestTruncation(t *testing.T) {
	for _, c := range []struct {
		name  string
		flags int
	}{{"shared", unix.MAP_SHARED}, {"private", unix.MAP_PRIVATE}} {
		t.Run(c.name, func(t *testing.T) {
			a := kit.NewArena(t, 4)
			fd := sealable(t, 4)
			a.Map(t, 0, 4, kit.RW, c.flags, fd, 0)
			a.Fill(t, 1, 3, 1) // private copies beyond the end go as well
			require.Zero(t, truncate(fd, kit.Len(2)))
			assert.Equal(t, "41 01 SIGBUS SIGBUS", contents(a, 0, 4))
			assert.Equal(t, unix.SIGBUS, kit.Me.Store(a.Page(2), 1).Signal)
			require.Zero(t, truncate(fd, kit.Len(3)))
			assert.Equal(t, "41 01 00 SIGBUS", contents(a, 0, 4))
			mustSeal(t, fd, unix.F_SEAL_SHRINK)
			assert.Equal(t, unix.EPERM, truncate(fd, kit.Len(1)))
			assert.Equal(t, "41 01 00 SIGBUS", contents(a, 0, 4))
			require.Zero(t, truncate(fd, kit.Len(4)))
			assert.Equal(t, "41 01 00 00", contents(a, 0, 4))
			mustSeal(t, fd, unix.F_SEAL_GROW)
			assert.Equal(t, unix.EPERM, truncate(fd, kit.Len(5)))
			kit.Say(t, "%s", contents(a, 0, 4))
		})
	}
}

func TestGrowSealAndAccessBeyondTheEnd(t *testing.T) {
	a := kit.NewArena(t, 4)
	fd := sealable(t, 2)
	mustSeal(t, fd, unix.F_SEAL_GROW)
	a.Map(t, 0, 4, kit.RW, unix.MAP_SHARED, fd, 0)
	assert.Equal(t, "41 42 SIGBUS SIGBUS", contents(a, 0, 4))
	var st unix.Stat_t
	require.NoError(t, unix.Fstat(fd, &st))
	assert.Equal(t, int64(kit.Len(2)), st.Size)
}
