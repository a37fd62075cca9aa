// This file holds the old mappings: every kind of memory, in pages [2,6), and what can be said of it besides.
package keep

import (
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

// name is a C string that a forked child finds where it is here.
var name = [4]byte{'o', 'l', 'd'}

// A scene maps something in a victim.
type scene struct {
	name string
	set  func(t testing.TB, v *victim)
}

// mapped is a scene of one call; dirty is how many of its pages are written to.
func mapped(name string, prot, flags, offset, dirty int, file func(*files) int) scene {
	return scene{name, func(t testing.TB, v *victim) {
		fd := -1
		if file != nil {
			fd = file(v.files)
		}
		v.mustMap(t, oldAt, oldPages, prot, flags, fd, offset)
		v.fill(t, oldAt, dirty, 0xa0)
	}}
}

// with adds something to a scene.
func (s scene) with(name string, more func(t testing.TB, v *victim)) scene {
	return scene{s.name + ", " + name, func(t testing.TB, v *victim) { s.set(t, v); more(t, v) }}
}

func protect(t testing.TB, v *victim, i, n, prot int) {
	t.Helper()
	require.Zero(t, v.Mprotect(v.arena.Page(i), kit.Len(n), prot))
}

func scenes() []scene {
	disk, tmpfs := func(f *files) int { return f.disk }, func(f *files) int { return f.tmpfs }
	plain := mapped("anonymous", rw, anon, 0, 4, nil)
	return []scene{
		plain,
		plain.with("several protections", func(t testing.TB, v *victim) {
			protect(t, v, 2, 1, ro)
			protect(t, v, 3, 1, none)
			protect(t, v, 5, 1, rw|unix.PROT_EXEC)
		}),
		plain.with("not for children", func(t testing.TB, v *victim) {
			require.Zero(t, v.Madvise(v.arena.Page(3), kit.Len(2), unix.MADV_DONTFORK))
		}),
		plain.with("with neighbours", func(t testing.TB, v *victim) {
			v.mustMap(t, 1, 1, ro, unix.MAP_SHARED, v.files.disk, 0)
			v.mustMap(t, 6, 2, rw, shared, -1, 0)
			v.fill(t, 6, 2, 0xb0)
		}),
		plain.with("with a hole", func(t testing.TB, v *victim) {
			require.Zero(t, v.Munmap(v.arena.Page(3), kit.Len(1)))
		}),
		plain.with("partly locked", func(t testing.TB, v *victim) {
			require.Zero(t, v.Mlock(v.arena.Page(3), kit.Len(2)))
		}),
		plain.with("named", func(t testing.TB, v *victim) {
			// Not every kernel has names. Then it is one scene more without.
			v.Call(unix.SYS_PRCTL, unix.PR_SET_VMA, unix.PR_SET_VMA_ANON_NAME, v.arena.Page(3), kit.Len(2), uintptr(unsafe.Pointer(&name)))
		}),
		mapped("untouched", rw, anon, 0, 0, nil),
		mapped("reserved", none, anon|unix.MAP_NORESERVE, 0, 0, nil),
		mapped("grows down", rw, anon|unix.MAP_GROWSDOWN, 0, 4, nil),
		mapped("locked", rw, anon|unix.MAP_LOCKED, 0, 4, nil),
		plain.with("locked on fault", func(t testing.TB, v *victim) {
			require.Zero(t, v.Mlock2(v.arena.Page(oldAt), kit.Len(oldPages), unix.MLOCK_ONFAULT))
		}),
		mapped("private file, dirty", rw, unix.MAP_PRIVATE, 1, 2, disk),
		mapped("private file, clean", ro, unix.MAP_PRIVATE, 1, 0, disk),
		mapped("shared file", rw, unix.MAP_SHARED, 1, 3, disk),
		mapped("shared file, locked", rw, unix.MAP_SHARED|unix.MAP_LOCKED, 1, 3, tmpfs),
		mapped("shared tmpfs file", rw, unix.MAP_SHARED, 2, 3, tmpfs),
		mapped("private tmpfs file", rw, unix.MAP_PRIVATE, 2, 3, tmpfs),
		mapped("file to read only", ro, unix.MAP_SHARED, 0, 0, func(f *files) int { return f.readOnly }),
		mapped("beyond the end of a file", rw, unix.MAP_SHARED, filePages-2, 2, disk),
		mapped("shared memory", rw, shared, 0, 4, nil),
		mapped("memfd", rw, unix.MAP_SHARED, 1, 3, func(f *files) int { return f.memfd }),
		mapped("/dev/zero", rw, unix.MAP_PRIVATE, 1, 3, func(f *files) int { return f.zero }),
		mapped("code", ro|unix.PROT_EXEC, unix.MAP_PRIVATE, 1, 0, disk),
		{"segment", func(t testing.TB, v *victim) {
			r := v.Call(unix.SYS_SHMAT, uintptr(v.files.segment), v.arena.Page(oldAt), 0)
			require.True(t, r.OK(), "shmat: %v", r)
			v.fill(t, oldAt, oldPages, 0xc0)
		}},
		{"segment, in parts", func(t testing.TB, v *victim) {
			r := v.Call(unix.SYS_SHMAT, uintptr(v.files.segment), v.arena.Page(oldAt), 0)
			require.True(t, r.OK(), "shmat: %v", r)
			v.fill(t, oldAt, oldPages, 0xc0)
			protect(t, v, 3, 1, ro)
			v.mustMap(t, 4, 1, rw, anon, -1, 0)
		}},
	}
}

// build makes the scene, over what earlier ones left.
func (v *victim) build(t testing.TB, s scene) {
	t.Helper()
	require.Zero(t, v.Munmap(v.arena.Base, kit.Len(v.arena.Pages)))
	v.files.reset(t)
	s.set(t, v)
	// Something for mremap to move.
	v.mustMap(t, 12, 2, rw, anon, -1, 0)
	v.fill(t, 12, 2, 0xe0)
	v.see(t) // touches what can be touched
}

// checkCounters claims that the counters which limits are compared with are those that the mappings add up to: what
// fits exactly fits, and one page more does not. Pages 14 and 15 are free.
func (v *victim) checkCounters(t testing.TB) {
	t.Helper()
	s := v.see(t)
	var locked int
	for _, flags := range s.Flags {
		if slices.Contains(strings.Fields(flags), "lo") {
			locked++
		}
	}
	kb := func(value string) int { return number(t, strings.TrimSuffix(value, " kB")) * 1024 / kit.PageSize }
	for _, c := range []struct {
		name               string
		resource, now, add int
		want               unix.Errno
	}{
		{"address space", unix.RLIMIT_AS, kb(s.Size), 0, unix.ENOMEM},
		{"data", unix.RLIMIT_DATA, kb(s.Data), 0, unix.ENOMEM},
		{"locked", unix.RLIMIT_MEMLOCK, locked, unix.MAP_LOCKED, unix.EAGAIN},
	} {
		e := v.withLimit(t, c.resource, uint64(kit.Len(c.now+1)), func() unix.Errno {
			assert.Equal(t, unix.Errno(0), v.mmap(14, 1, rw, anon|c.add, -1, 0), "%s: what is left", c.name)
			return v.mmap(15, 1, rw, anon|c.add, -1, 0)
		})
		assert.Equal(t, c.want, e, "%s: more than is left", c.name)
		require.Zero(t, v.Munmap(v.arena.Page(14), kit.Len(2)))
	}
	assert.Equal(t, s, v.see(t))
}

// checkAlive claims that the old mappings are more than a picture: what may be written is written, to the file
// if it is shared, and what goes is gone.
func (v *victim) checkAlive(t testing.TB) {
	t.Helper()
	for _, l := range v.arena.Maps(t, v.Actor) {
		for at := l.Start; at < l.End; at += kit.Len(1) {
			i := int(at-v.arena.Base) / kit.PageSize
			stored := v.Store(at, byte(0x30+i))
			if stored.Signal == unix.SIGBUS {
				continue
			}
			assert.Equal(t, l.Perms[1] != 'w', stored.Faulted(), "page %d", i)
			if !stored.Faulted() {
				assert.Equal(t, uint64(0x30+i), v.Load(at).Value, "page %d", i)
			}
		}
	}
	require.Zero(t, v.Munmap(v.arena.Base, kit.Len(v.arena.Pages)))
	assert.Empty(t, v.arena.Maps(t, v.Actor))
	assert.Zero(t, v.files.attached(t))
}
