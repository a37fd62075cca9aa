// Claims, for every kind of old mapping and every way to fail, that nothing has changed.
package keep

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

// The calls are for a part of the old mapping, for all of it, and for more on both ends.
var extents = []struct {
	name string
	i, n int
}{{"a part", 3, 2}, {"all", oldAt, oldPages}, {"more", 1, 7}}

func TestFailureKeepsTheOldMapping(t *testing.T) {
	f := openFiles(t)
	for _, s := range scenes() {
		t.Run(s.name, func(t *testing.T) {
			v := newVictim(t, f)
			v.build(t, s)
			before := v.see(t)
			kit.Say(t, "%v", before.Bytes)
			for _, bad := range failures() {
				if bad.gap {
					continue
				}
				t.Run(bad.name, func(t *testing.T) {
					for _, x := range extents {
						require.NotZero(t, bad.call(t, v, x.i, x.n), "for %s the call has to fail", x.name)
					}
					// If nothing has changed, the next failure can have the same scene.
					if !assert.Equal(t, before, v.see(t)) {
						v.build(t, s)
						before = v.see(t)
					}
				})
			}
			v.checkAlive(t)
		})
	}
}

// Where Linux leaves a gap, it is exactly the range that was asked for. No gap is better.
func TestLateFailureLeavesAGapAtMost(t *testing.T) {
	f := openFiles(t)
	for _, s := range scenes() {
		for _, bad := range failures() {
			if !bad.gap {
				continue
			}
			t.Run(s.name+" "+bad.name, func(t *testing.T) {
				v := newVictim(t, f)
				for _, x := range extents {
					v.build(t, s)
					before := v.see(t)
					require.NotZero(t, bad.call(t, v, x.i, x.n))
					if after := v.see(t); !assert.ObjectsAreEqual(before, after) {
						v.build(t, s)
						require.Zero(t, v.Munmap(v.arena.Page(x.i), kit.Len(x.n)))
						assert.Equal(t, v.see(t).anyMemory(), after.anyMemory(), "as after munmap, for %s", x.name)
					}
				}
				v.build(t, s)
				v.checkAlive(t)
			})
		}
	}
}

// The error is that of the reason, and not of anything that was there before.
func TestErrors(t *testing.T) {
	f := openFiles(t)
	for _, bad := range failures() {
		t.Run(bad.name, func(t *testing.T) {
			v := newVictim(t, f)
			v.build(t, scenes()[0])
			for _, x := range extents {
				e := bad.call(t, v, x.i, x.n)
				kit.Say(t, "%s: %s", x.name, kit.ErrnoName(e))
				assert.Equal(t, bad.want, e, "for %s", x.name)
			}
		})
	}
}

// What failed for a reason that goes away works afterwards, and then replaces.
func TestSecondAttempt(t *testing.T) {
	f := openFiles(t)
	for _, s := range scenes() {
		t.Run(s.name, func(t *testing.T) {
			v := newVictim(t, f)
			v.build(t, s)
			const i, n = 1, 7
			again := func() unix.Errno { return v.mmap(i, n, rw, unix.MAP_SHARED, f.tmpfs, 0) }
			require.Equal(t, unix.ENOMEM, v.withLimit(t, unix.RLIMIT_AS, v.short(t, "VmSize", i, n), again))
			require.Zero(t, again())
			kit.Say(t, "%v", v.arena.Bytes(v.Actor, i, n))
			lines := v.arena.Maps(t, v.Actor)
			require.Len(t, lines, 2, "the new one, and pages 12 and 13")
			assert.Equal(t, v.arena.Page(i), lines[0].Start)
			assert.Equal(t, v.arena.Page(i+n), lines[0].End)
			assert.Zero(t, f.attached(t))
		})
	}
}

// A child that shares pages with its parent sees the parent's failure as little as the parent does.
func TestFailureWithAChild(t *testing.T) {
	f := openFiles(t)
	v := newVictim(t, f)
	v.build(t, scenes()[0])
	child := &victim{v.Fork(t), v.arena, f}
	before, childBefore := v.see(t), child.see(t)
	require.NotZero(t, v.mmap(1, 7, rw, unix.MAP_SHARED, f.readOnly, 0))
	require.NotZero(t, child.mmap(3, 2, rw, unix.MAP_SHARED, f.sealed, 0))
	assert.Equal(t, before, v.see(t))
	assert.Equal(t, childBefore, child.see(t))
	v.fill(t, oldAt, oldPages, 0x10)
	assert.Equal(t, childBefore.Bytes, child.see(t).Bytes, "the pages are still copied when written to")
}

// Locked memory over locked memory at the limit: either it works completely, or nothing has changed.
func TestLockedOverLockedIsAllOrNothing(t *testing.T) {
	f := openFiles(t)
	for _, x := range extents {
		t.Run(x.name, func(t *testing.T) {
			v := newVictim(t, f)
			v.build(t, scene{"locked", func(t testing.TB, v *victim) {
				v.mustMap(t, oldAt, oldPages, rw, anon|unix.MAP_LOCKED, -1, 0)
				v.fill(t, oldAt, oldPages, 1)
			}})
			v.see(t)
			before := v.see(t)
			e := v.withLimit(t, unix.RLIMIT_MEMLOCK, uint64(kit.Len(oldPages)), func() unix.Errno {
				return v.mmap(x.i, x.n, rw, anon|unix.MAP_LOCKED, -1, 0)
			})
			after := v.see(t)
			if e != 0 {
				assert.Equal(t, unix.EAGAIN, e)
				assert.Equal(t, before, after)
				return
			}
			assert.NotEqual(t, "more", x.name, "that locks more than before")
			assert.Equal(t, before.Mappings, after.Mappings)
			assert.Equal(t, before.Flags, after.Flags)
			assert.Equal(t, before.Locked, after.Locked)
			for k := range x.n {
				assert.Equal(t, "00", after.Bytes[x.i+k-oldAt])
			}
		})
	}
}
