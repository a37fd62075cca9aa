// These tests claim what MADV_POPULATE_READ and MADV_POPULATE_WRITE make resident, and why they fail.
package madvise

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

var populating = []struct {
	name   string
	advice int
}{{"READ", unix.MADV_POPULATE_READ}, {"WRITE", unix.MADV_POPULATE_WRITE}}

func TestPopulatedMemoryIsResident(t *testing.T) {
	for _, p := range populating {
		t.Run(p.name, func(t *testing.T) {
			a := kit.NewArena(t, 4)
			a.Map(t, 0, 4, kit.RW, unix.MAP_SHARED, diskFile(t), 0)
			mustAdvise(t, a, 0, 4, p.advice)
			assert.Equal(t, "16 kB", a.Smaps(t, kit.Me)[0]["Rss"])
			assert.Equal(t, "41 42 43 44", contents(a, kit.Me, 0, 4))
		})
	}
}

func TestPopulatingForWritingCopies(t *testing.T) {
	a := kit.NewArena(t, 4)
	fd := diskFile(t)
	a.Map(t, 0, 4, kit.RW, unix.MAP_PRIVATE, fd, 0)
	mustAdvise(t, a, 0, 2, unix.MADV_POPULATE_WRITE)
	for i := range 2 {
		_, err := unix.Pwrite(fd, []byte("z"), int64(kit.Len(i)))
		require.NoError(t, err)
	}
	assert.Equal(t, "41 42", contents(a, kit.Me, 0, 2))
}

func TestPopulateKeepsWhatIsThere(t *testing.T) {
	for _, p := range populating {
		t.Run(p.name, func(t *testing.T) {
			a := kit.NewArena(t, 4)
			a.Anon(t, 0, 4, kit.RW, 0)
			a.Fill(t, 1, 2, 1)
			mustAdvise(t, a, 0, 4, p.advice)
			assert.Equal(t, "00 01 02 00", contents(a, kit.Me, 0, 4))
		})
	}
}

func TestPopulateFails(t *testing.T) {
	for _, p := range populating {
		for _, c := range []struct {
			name string
			prot int
			want unix.Errno // for READ and WRITE
		}{
			{"beyond the end of the file", kit.RW, unix.EFAULT},
			{"without access", unix.PROT_NONE, unix.EINVAL},
		} {
			t.Run(p.name+" "+c.name, func(t *testing.T) {
				a := kit.NewArena(t, 6)
				a.Map(t, 0, 6, c.prot, unix.MAP_SHARED, diskFile(t), 0)
				got := advise(a, 0, 6, p.advice)
				assert.Equal(t, c.want, got, kit.ErrnoName(got))
				kit.Say(t, "%s", kit.ErrnoName(got))
			})
		}
	}
	t.Run("READ at a guard", func(t *testing.T) {
		a := kit.NewArena(t, 2)
		a.Anon(t, 0, 2, kit.RW, 0)
		mustAdvise(t, a, 1, 1, guardInstall)
		assert.Equal(t, unix.EFAULT, advise(a, 0, 2, unix.MADV_POPULATE_READ))
	})
}
