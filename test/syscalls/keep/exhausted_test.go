// Claims about failures for want of something that all mappings of a process, or of the machine, have in common: room
// to lock, numbers of mappings, memory.
package keep

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

// After mlockall every mapping wants to be locked, also one that does not say so.
func TestFailureAfterMlockall(t *testing.T) {
	f := openFiles(t)
	for _, s := range scenes() {
		t.Run(s.name, func(t *testing.T) {
			v := newVictim(t, f)
			v.build(t, s)
			require.Zero(t, v.Mlockall(unix.MCL_FUTURE))
			before := v.see(t)
			for _, x := range extents {
				e := v.withLimit(t, unix.RLIMIT_MEMLOCK, uint64(kit.PageSize), func() unix.Errno {
					return v.mmap(x.i, x.n, rw, unix.MAP_SHARED, f.tmpfs, 0)
				})
				kit.Say(t, "%s", kit.ErrnoName(e))
				assert.Equal(t, unix.EAGAIN, e, "for %s", x.name)
			}
			assert.Equal(t, before, v.see(t))
			v.checkAlive(t)
		})
	}
}

// crowded is a victim that has all mappings that it may have, with those of the scene.
func crowded(t *testing.T, f *files, s scene) *victim {
	t.Helper()
	var most int
	text, err := os.ReadFile("/proc/sys/vm/max_map_count")
	require.NoError(t, err)
	if most = number(t, strings.TrimSpace(string(text))); most > 1<<20 {
		t.Skip("the kernel does not bound how many mappings a process has (vm.max_map_count)")
	}
	// Every other page of the crowd is another mapping. This process makes most of them, since a child is asked for
	// each, and leaves some, since Go needs mappings too.
	const spare, crowdAt = 2000, 1024
	whole := kit.NewArena(t, crowdAt+most+spare)
	whole.Anon(t, crowdAt, most+spare, none, unix.MAP_NORESERVE)
	split := func(by *kit.Actor, i int) unix.Errno {
		return by.Mprotect(whole.Page(crowdAt+2*i+1), kit.Len(1), ro)
	}
	i := 0
	for ; 2*i < most-spare; i++ {
		require.Zero(t, split(kit.Me, i))
	}
	v := &victim{arena: &kit.Arena{Base: whole.Base, Pages: 16}, files: f, Actor: kit.Fork(t)}
	require.Zero(t, kit.Me.Munmap(whole.Page(crowdAt), kit.Len(most+spare)))
	v.build(t, s)
	for e := unix.Errno(0); e == 0; i++ {
		require.Less(t, 2*i, most)
		e = split(v.Actor, i)
	}
	return v
}

// Whoever wants a part in the middle of a mapping wants one mapping more.
func TestTooManyMappings(t *testing.T) {
	f := openFiles(t)
	const i, n = 3, 2
	kinds := []scene{ // of one mapping each
		mapped("anonymous", rw, anon, 0, 4, nil),
		mapped("shared file", rw, unix.MAP_SHARED, 1, 3, func(f *files) int { return f.disk }),
		mapped("locked", rw, anon|unix.MAP_LOCKED, 0, 4, nil),
	}
	v := crowded(t, f, kinds[0])
	for _, s := range kinds {
		t.Run(s.name, func(t *testing.T) {
			v.build(t, s)
			before := v.see(t)
			for name, call := range map[string]func() unix.Errno{
				"anonymous":      func() unix.Errno { return v.mmap(i, n, ro, anon, -1, 0) },
				"without access": func() unix.Errno { return v.mmap(i, n, none, anon, -1, 0) },
				"file":           func() unix.Errno { return v.mmap(i, n, rw, unix.MAP_SHARED, f.tmpfs, 0) },
				"shmat": func() unix.Errno {
					return v.Call(unix.SYS_SHMAT, uintptr(f.small), v.arena.Page(i), shmRemap).Errno
				},
				"mremap": func() unix.Errno {
					return v.Mremap(v.arena.Page(12), kit.Len(n), kit.Len(n), unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, v.arena.Page(i)).Errno
				},
			} {
				assert.Equal(t, unix.ENOMEM, call(), name)
				assert.Equal(t, before, v.see(t), name)
			}
		})
	}
}

// More memory than the machine has is refused, or promised: that is up to the machine (vm.overcommit_memory).
func TestMoreThanTheMachineHas(t *testing.T) {
	var info unix.Sysinfo_t
	require.NoError(t, unix.Sysinfo(&info))
	pages := int((info.Totalram+info.Totalswap)*uint64(info.Unit)/uint64(kit.PageSize)) + 1<<18
	if kit.Len(pages) > 512<<30 {
		t.Skip("a machine of more memory than there are free addresses behind the arena")
	}
	f := openFiles(t)
	for _, s := range scenes()[:4] {
		t.Run(s.name, func(t *testing.T) {
			whole := kit.NewArena(t, pages+16)
			v := &victim{arena: &kit.Arena{Base: whole.Base, Pages: 16}, files: f, Actor: kit.Fork(t)}
			v.build(t, s)
			before := v.see(t)
			if e := v.mmap(3, pages, rw, anon, -1, 0); e != 0 {
				assert.Equal(t, unix.ENOMEM, e)
				assert.Equal(t, before, v.see(t))
				return
			}
			for _, b := range v.arena.Bytes(v.Actor, 3, 13) {
				assert.Equal(t, "00", b)
			}
		})
	}
}
