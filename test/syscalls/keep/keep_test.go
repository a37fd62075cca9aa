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
					failed := true
					for _, x := range extents {
						failed = assert.NotZero(t, bad.call(t, v, x.i, x.n), "for %s the call has to fail", x.name) && failed
					}
					// If nothing has changed, the next failure can have the same scene.
					if !failed || !assert.Equal(t, before, v.see(t)) {
						v.build(t, s)
						before = v.see(t)
					}
				})
			}
			v.checkCounters(t)
			v.checkAlive(t)
		})
	}
}

// Where Linux leaves a gap, it is exactly the range that was asked for. No gap is better.
func TestLateFailureLeavesAGapAtMost(t *testing.T) {
	f := openFiles(t)
	for _, s := range scenes() {
		t.Run(s.name, func(t *testing.T) {
			v := newVictim(t, f)
			v.build(t, s)
			before := v.see(t)
			gaps := map[int][]state{} // as after munmap of each extent, by how many pages more it is
			for _, bad := range failures() {
				if !bad.gap {
					continue
				}
				t.Run(bad.name, func(t *testing.T) {
					now := before
					for k, x := range extents {
						require.NotZero(t, bad.call(t, v, x.i, x.n))
						after := v.see(t).anyMemory()
						kept := assert.ObjectsAreEqual(now.anyMemory(), after)
						if bad.more > 0 { // Linux keeps the old mapping since 6.17: then who comes after it has to
							kit.Say(t, "%s: kept %v", x.name, kept)
						}
						if kept {
							continue
						}
						if gaps[bad.more] == nil {
							for _, gap := range extents {
								v.build(t, s)
								v.unmap(t, gap.i, gap.n+bad.more)
								gaps[bad.more] = append(gaps[bad.more], v.see(t))
							}
							v.build(t, s)
							v.unmap(t, x.i, x.n+bad.more)
						}
						// Each extent holds those before it, so one gap covers the other.
						now = gaps[bad.more][k]
						assert.Equal(t, now.anyMemory(), after, "as after munmap, for %s", x.name)
					}
					if !assert.ObjectsAreEqual(before.anyMemory(), now.anyMemory()) {
						v.build(t, s)
					}
				})
			}
			v.checkCounters(t)
			v.checkAlive(t)
		})
	}
}

func (v *victim) unmap(t testing.TB, i, n int) {
	t.Helper()
	require.Zero(t, v.Munmap(v.arena.Page(i), kit.Len(n)))
}

// The error is that of the reason, and not of anything that was there before.
func TestErrors(t *testing.T) {
	v := newVictim(t, openFiles(t))
	for _, bad := range failures() {
		t.Run(bad.name, func(t *testing.T) {
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
