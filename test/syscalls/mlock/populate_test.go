// These tests claim that a lock without ONFAULT populates what it locks, and does with contents what
// access would have done.
package mlock

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

func TestLockedMemoryIsResident(t *testing.T) {
	for _, c := range []struct {
		name  string
		flags int
		file  bool
	}{
		{"anonymous", unix.MAP_PRIVATE | unix.MAP_ANONYMOUS, false},
		{"shared", unix.MAP_SHARED | unix.MAP_ANONYMOUS, false},
		{"private file", unix.MAP_PRIVATE, true},
		{"shared file", unix.MAP_SHARED, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := kit.NewArena(t, 5)
			fd := -1
			if c.file {
				fd = kit.File(t, 5)
			}
			a.Map(t, 0, 5, kit.RW, c.flags, fd, 0)
			require.Zero(t, kit.Me.Mlock(a.Page(0), kit.Len(5)))
			entry := a.Smaps(t, kit.Me)[0]
			assert.Equal(t, "20 kB", entry["Rss"])
			assert.Equal(t, "20 kB", entry["Locked"])
			kit.Say(t, "Rss %s, Locked %s", entry["Rss"], entry["Locked"])
		})
	}
}

func TestUnlockedMemoryIsNotCountedAsLocked(t *testing.T) {
	a := kit.NewArena(t, 4)
	a.Anon(t, 0, 4, kit.RW, 0)
	a.Fill(t, 0, 4, 1)
	assert.Equal(t, "0 kB", a.Smaps(t, kit.Me)[0]["Locked"])
	require.Zero(t, kit.Me.Mlock(a.Page(0), kit.Len(4)))
	assert.Equal(t, "16 kB", a.Smaps(t, kit.Me)[0]["Locked"])
	require.Zero(t, kit.Me.Munlock(a.Page(0), kit.Len(4)))
	assert.Equal(t, "0 kB", a.Smaps(t, kit.Me)[0]["Locked"])
	assert.Equal(t, []string{"01", "02", "03", "04"}, a.Bytes(kit.Me, 0, 4))
}

func TestLockOnFaultCountsWhatIsResident(t *testing.T) {
	a := kit.NewArena(t, 4)
	a.Anon(t, 0, 4, kit.RW, 0)
	require.Zero(t, kit.Me.Mlock2(a.Page(0), kit.Len(4), unix.MLOCK_ONFAULT))
	a.Fill(t, 0, 2, 1)
	entry := a.Smaps(t, kit.Me)[0]
	assert.Equal(t, entry["Rss"], entry["Locked"])
	assert.Contains(t, []string{"8 kB", "12 kB", "16 kB"}, entry["Locked"])
	assert.Equal(t, []string{"01", "02", "00", "00"}, a.Bytes(kit.Me, 0, 4))
}

func TestLockBeyondEndOfFile(t *testing.T) {
	kit.EachDir(t, func(t *testing.T, d kit.Dir) {
		a := kit.NewArena(t, 4)
		a.Map(t, 0, 4, kit.RW, unix.MAP_SHARED, d.File(t, 2), 0)
		assert.Zero(t, kit.Me.Mlock(a.Page(0), kit.Len(2)))
		assert.Equal(t, unix.ENOMEM, kit.Me.Mlock(a.Page(0), kit.Len(4)))
		assert.Equal(t, []string{"p0-p4 locked"}, locks(t, a, kit.Me))
		assert.Zero(t, kit.Me.Mlock2(a.Page(0), kit.Len(4), unix.MLOCK_ONFAULT))
		assert.Equal(t, []string{"41", "42", "SIGBUS", "SIGBUS"}, endings(a.Bytes(kit.Me, 0, 4)))
		sayLocks(t, a, kit.Me)
	})
}

// The mappings before the one that cannot be populated are, the one after is locked and no more.
func TestLockAcrossNoAccess(t *testing.T) {
	a := kit.NewArena(t, 6)
	a.Anon(t, 0, 2, kit.RW, 0)
	a.Anon(t, 2, 2, unix.PROT_NONE, 0)
	a.Anon(t, 4, 2, kit.RW, 0)
	assert.Equal(t, unix.ENOMEM, kit.Me.Mlock(a.Page(0), kit.Len(6)))
	assert.Equal(t, []string{"p0-p2 locked", "p2-p4 locked", "p4-p6 locked"}, locks(t, a, kit.Me))
	assert.Equal(t, "8 kB", a.Smaps(t, kit.Me)[0]["Rss"])
	sayLocks(t, a, kit.Me)
}

func TestLockKeepsContents(t *testing.T) {
	a := kit.NewArena(t, 4)
	a.Anon(t, 0, 4, kit.RW, 0)
	a.Fill(t, 0, 4, 7)
	require.Zero(t, kit.Me.Mlock(a.Page(1), kit.Len(2)))
	assert.Equal(t, []string{"07", "08", "09", "0a"}, a.Bytes(kit.Me, 0, 4))
	require.Zero(t, kit.Me.Munlock(a.Page(0), kit.Len(4)))
	assert.Equal(t, []string{"07", "08", "09", "0a"}, a.Bytes(kit.Me, 0, 4))
}
