// Claims how a MAP_GROWSDOWN mapping grows: on an access below it, from the thread or from the kernel, down
// to RLIMIT_STACK, and not near another mapping.
package mmap

import (
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

// An arena with one growing page at growTop and nothing else.
const growTop = 2*guardPages + 16

func growing(t testing.TB) *kit.Arena {
	t.Helper()
	a := kit.NewArena(t, growTop+1)
	a.Anon(t, growTop, 1, rw, unix.MAP_GROWSDOWN)
	a.Fill(t, growTop, 1, 0x77)
	return a
}

// lowest is the first page of what the last mapping of the arena grew to.
func lowest(t testing.TB, a *kit.Arena, actor *kit.Actor) int {
	t.Helper()
	lines := a.Maps(t, actor)
	require.NotEmpty(t, lines)
	return int(lines[len(lines)-1].Start-a.Base) / kit.PageSize
}

func TestGrowsOnAccessBelow(t *testing.T) {
	for name, access := range map[string]func(a *kit.Arena, page int) kit.Access{
		"store": func(a *kit.Arena, page int) kit.Access { return kit.Me.Store(a.Page(page), 5) },
		"load":  func(a *kit.Arena, page int) kit.Access { return kit.Me.Load(a.Page(page)) },
	} {
		for distance, pages := range map[string]int{"next page": 1, "two pages": 2, "further than the guard gap": guardPages + 9} {
			t.Run(name+" "+distance, func(t *testing.T) {
				a := growing(t)
				got := access(a, growTop-pages)
				kit.Say(t, "%s, mapped from page %d", a.Describe(got), lowest(t, a, kit.Me))
				assert.False(t, got.Faulted(), "%v", got)
				assert.Equal(t, growTop-pages, lowest(t, a, kit.Me))
				assert.Equal(t, "77", a.Bytes(kit.Me, growTop, 1)[0])
				assert.Len(t, a.Maps(t, kit.Me), 1)
			})
		}
	}
}

func TestGrownMemoryIsZeroAndUsable(t *testing.T) {
	a := growing(t)
	require.False(t, kit.Me.Store(a.Page(growTop-3)+8, 5).Faulted())
	assert.Equal(t, []string{"00", "00", "00", "77"}, a.Bytes(kit.Me, growTop-3, 4))
	a.Fill(t, growTop-3, 4, 1)
	assert.Equal(t, []string{"01", "02", "03", "04"}, a.Bytes(kit.Me, growTop-3, 4))
}

func TestGrowsPageByPage(t *testing.T) {
	a := growing(t)
	for i := 1; i <= 20; i++ {
		require.False(t, kit.Me.Store(a.Page(growTop-i), byte(i)).Faulted())
		require.Equal(t, growTop-i, lowest(t, a, kit.Me))
	}
	kit.Say(t, "%v", a.Layout(t, kit.Me))
}

// A system call that is given a buffer below makes it grow too.
func TestGrowsInASystemCall(t *testing.T) {
	a := growing(t)
	r, w := kit.Pipe(t)
	_, err := unix.Write(w, []byte{6, 6})
	require.NoError(t, err)
	got := kit.Me.Read(r, a.Page(growTop-2), 2)
	kit.Say(t, "%v, mapped from page %d", got, lowest(t, a, kit.Me))
	assert.Equal(t, kit.Result{Value: 2}, got)
	assert.Equal(t, "06", a.Bytes(kit.Me, growTop-2, 1)[0])
}

func TestGrowsForAThreadAndForAChild(t *testing.T) {
	a := growing(t)
	child := kit.Fork(t)
	thread := kit.NewThread(t)
	assert.False(t, thread.Store(a.Page(growTop-1), 1).Faulted())
	assert.False(t, child.Store(a.Page(growTop-2), 1).Faulted())
	kit.Say(t, "here from %d, in the child from %d", lowest(t, a, kit.Me), lowest(t, a, child))
	assert.Equal(t, growTop-1, lowest(t, a, kit.Me))
	assert.Equal(t, growTop-2, lowest(t, a, child))
}

// Grown memory counts for the address space.
func TestGrowthCounts(t *testing.T) {
	a := growing(t)
	child := kit.Fork(t)
	before := virtualPages(t, child)
	child.Store(a.Page(growTop-5), 1)
	kit.Say(t, "%d", virtualPages(t, child)-before)
	assert.Equal(t, 5, virtualPages(t, child)-before)
}

// RLIMIT_STACK bounds the whole of the mapping.
func TestGrowsNoFurtherThanTheStackLimit(t *testing.T) {
	a := growing(t)
	child := kit.Fork(t)
	limit(t, child, unix.RLIMIT_STACK, uint64(kit.Len(16)))
	denied := child.Store(a.Page(growTop-16), 1)
	kit.Say(t, "%s", a.Describe(denied))
	assert.Equal(t, "SIGSEGV/MAPERR", denied.SignalName())
	assert.Equal(t, a.Page(growTop-16), denied.Addr)
	assert.Equal(t, growTop, lowest(t, a, child))
	allowed := child.Store(a.Page(growTop-15), 1)
	kit.Say(t, "%s", a.Describe(allowed))
	assert.False(t, allowed.Faulted())
	assert.Equal(t, growTop-15, lowest(t, a, child))
}

// RLIMIT_AS does too.
func TestGrowsNoFurtherThanTheAddressSpaceLimit(t *testing.T) {
	a := growing(t)
	child := kit.Fork(t)
	limit(t, child, unix.RLIMIT_AS, uint64(kit.Len(virtualPages(t, child)+4)))
	denied := child.Store(a.Page(growTop-5), 1)
	allowed := child.Store(a.Page(growTop-4), 1)
	kit.Say(t, "%s, %s", a.Describe(denied), a.Describe(allowed))
	assert.Equal(t, "SIGSEGV/MAPERR", denied.SignalName())
	assert.False(t, allowed.Faulted())
}

// Another mapping below keeps a gap that growth does not enter.
func TestGrowthStopsAtTheGuardGap(t *testing.T) {
	const at = 4 // of the other mapping, one page
	for name, c := range map[string]struct {
		prot, flags int
		to          int // the page that is accessed
		grows       bool
	}{
		"enough room":                {rw, anon, at + 1 + guardPages, true},
		"one page too near":          {rw, anon, at + guardPages, false},
		"next to it":                 {rw, anon, at + 1, false},
		"shared memory too":          {rw, shared, at + guardPages, false},
		"read-only memory too":       {ro, anon, at + guardPages, false},
		"not for PROT_NONE":          {none, anon, at + 1, true},
		"not for another that grows": {ro, anon | unix.MAP_GROWSDOWN, at + 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			a := growing(t)
			a.Map(t, at, 1, c.prot, c.flags, -1, 0)
			got := kit.Me.Store(a.Page(c.to), 1)
			kit.Say(t, "%s", a.Describe(got))
			assert.Equal(t, c.grows, !got.Faulted())
			if c.grows {
				assert.Equal(t, c.to, lowest(t, a, kit.Me))
			} else {
				assert.Equal(t, "SIGSEGV/MAPERR", got.SignalName())
				assert.Equal(t, growTop, lowest(t, a, kit.Me))
			}
		})
	}
}

// Where growth is refused, a system call fails with EFAULT.
func TestSystemCallInTheGuardGapFails(t *testing.T) {
	a := growing(t)
	a.Anon(t, growTop-4, 1, rw, 0)
	r, w := kit.Pipe(t)
	b := [1]byte{6}
	_, _, e := unix.Syscall(unix.SYS_WRITE, uintptr(w), uintptr(unsafe.Pointer(&b)), 1)
	require.Zero(t, e)
	got := kit.Me.Read(r, a.Page(growTop-1), 1)
	kit.Say(t, "%v", got)
	assert.Equal(t, unix.EFAULT, got.Errno)
}

// The flag is what makes it grow, not the place.
func TestPlainMappingDoesNotGrow(t *testing.T) {
	for name, flags := range map[string]int{"anonymous": anon, "MAP_STACK": anon | unix.MAP_STACK, "shared": shared} {
		t.Run(name, func(t *testing.T) {
			a := kit.NewArena(t, 4)
			a.Map(t, 2, 1, rw, flags, -1, 0)
			got := kit.Me.Store(a.Page(1), 1)
			kit.Say(t, "%s", a.Describe(got))
			assert.Equal(t, "SIGSEGV/MAPERR at p1", a.Describe(got))
		})
	}
}

// The rest of a mapping that grew and was cut grows on; the flag stays with every part.
func TestPartsStillGrow(t *testing.T) {
	a := growing(t)
	a.Anon(t, growTop-4, 5, rw, unix.MAP_GROWSDOWN)
	require.Zero(t, kit.Me.Munmap(a.Page(growTop-4), kit.Len(2)))
	got := kit.Me.Store(a.Page(growTop-3), 1)
	kit.Say(t, "%s %v", a.Describe(got), a.Layout(t, kit.Me))
	assert.False(t, got.Faulted())
	assert.Equal(t, growTop-3, lowest(t, a, kit.Me))
}

// The flag is shown by smaps.
func TestGrowsDownIsShown(t *testing.T) {
	a := growing(t)
	flags := a.Smaps(t, kit.Me)[growTop]["VmFlags"]
	assert.Contains(t, flags+" ", "gd ")
}

// Locked memory grows locked.
func TestGrowthOfLockedMemoryIsLocked(t *testing.T) {
	a := growing(t)
	require.Zero(t, kit.Me.Mlock(a.Page(growTop), kit.Len(1)))
	got := kit.Me.Store(a.Page(growTop-2), 1)
	require.False(t, got.Faulted(), "%v", got)
	entry := a.Smaps(t, kit.Me)[growTop-2]
	require.NotNil(t, entry)
	assert.Equal(t, "12 kB", entry["Size"])
	assert.Contains(t, entry["VmFlags"]+" ", "lo ")
}
