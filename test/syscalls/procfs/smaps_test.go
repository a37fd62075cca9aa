// smaps: the same mappings as maps; sizes that fit together; a flag for each property.
package procfs

import (
	"bufio"
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"sentrymm/test/syscalls/kit"
)

// The lines of smaps that begin an entry are those of maps.
func TestSmapsHasTheLinesOfMaps(t *testing.T) {
	child := still(t)
	smaps, err := os.ReadFile(child.Proc() + "/smaps")
	require.NoError(t, err)
	var heads []string
	for scanner := bufio.NewScanner(bytes.NewReader(smaps)); scanner.Scan(); {
		if first, _, _ := strings.Cut(scanner.Text(), " "); strings.Contains(first, "-") {
			heads = append(heads, scanner.Text())
		}
	}
	maps, err := os.ReadFile(child.Proc() + "/maps")
	require.NoError(t, err)
	assert.Equal(t, strings.Split(strings.TrimSuffix(string(maps), "\n"), "\n"), heads)
}

func TestSizesOfSmaps(t *testing.T) {
	a := kit.NewArena(t, 20)
	a.Anon(t, 0, 4, kit.RW, 0)
	a.Fill(t, 0, 3, 1)
	a.Map(t, 5, 4, kit.RW, unix.MAP_PRIVATE, kit.File(t, 4), 0)
	a.Fill(t, 5, 1, 1)
	kit.Me.Load(a.Page(6))
	a.Map(t, 10, 4, kit.RW, unix.MAP_SHARED, kit.Memfd(t, 4, 0), 0)
	a.Fill(t, 10, 2, 1)
	a.Anon(t, 15, 4, unix.PROT_NONE, 0)
	for _, c := range []struct {
		name             string
		page             int
		rss, anon, dirty int // pages, at least
	}{
		{"anonymous", 0, 3, 3, 3},
		{"file", 5, 2, 1, 1},
		{"memory-file", 10, 2, 0, 0},
		{"untouched", 15, 0, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			entry := a.Smaps(t, kit.Me)[c.page]
			require.NotNil(t, entry)
			field := func(name string) int { return kilobytes(t, entry[name]) * 1024 / kit.PageSize }
			assert.Equal(t, 4, field("Size"))
			t.Run("Rss", func(t *testing.T) {
				assert.GreaterOrEqual(t, field("Rss"), c.rss)
				assert.LessOrEqual(t, field("Rss"), field("Size"))
			})
			t.Run("Rss-is-its-parts", func(t *testing.T) {
				assert.Equal(t, field("Rss"), field("Shared_Clean")+field("Shared_Dirty")+field("Private_Clean")+field("Private_Dirty"))
			})
			t.Run("Pss", func(t *testing.T) { assert.LessOrEqual(t, field("Pss"), field("Rss")) })
			t.Run("Anonymous", func(t *testing.T) {
				assert.GreaterOrEqual(t, field("Anonymous"), c.anon)
				assert.LessOrEqual(t, field("Anonymous"), field("Rss"))
			})
			t.Run("Private_Dirty", func(t *testing.T) { assert.GreaterOrEqual(t, field("Private_Dirty"), c.dirty) })
			t.Run("Swap", func(t *testing.T) { assert.Zero(t, field("Swap")) })
			t.Run("Locked", func(t *testing.T) { assert.Zero(t, field("Locked")) })
		})
	}
}

// Shared memory that was never touched is not resident, nor what cannot be. (Private memory may be, ahead
// of its use.)
func TestUntouchedMemoryIsNotResident(t *testing.T) {
	a := kit.NewArena(t, 16)
	for i, c := range []struct {
		name        string
		prot, flags int
	}{{"shared", kit.RW, shared}, {"none", unix.PROT_NONE, private}} {
		t.Run(c.name, func(t *testing.T) {
			a.Map(t, 5*i, 4, c.prot, c.flags, -1, 0)
			assert.Equal(t, "0 kB", a.Smaps(t, kit.Me)[5*i]["Rss"])
		})
	}
}

func TestGivenBackMemoryIsNotResident(t *testing.T) {
	a := kit.NewArena(t, 8)
	a.Anon(t, 0, 4, kit.RW, 0)
	a.Fill(t, 0, 4, 1)
	assert.Equal(t, pages(4), a.Smaps(t, kit.Me)[0]["Rss"])
	require.Zero(t, kit.Me.Madvise(a.Page(0), kit.Len(4), unix.MADV_DONTNEED))
	assert.Equal(t, "0 kB", a.Smaps(t, kit.Me)[0]["Rss"])
}

// Pages that a child has, too, are shared until one of the two writes.
func TestForkMakesPagesShared(t *testing.T) {
	a := kit.NewArena(t, 4)
	a.Anon(t, 0, 4, kit.RW, 0)
	a.Fill(t, 0, 4, 1)
	kit.Fork(t)
	entry := a.Smaps(t, kit.Me)[0]
	assert.Equal(t, pages(4), entry["Shared_Dirty"])
	assert.Equal(t, "0 kB", entry["Private_Dirty"])
	assert.Equal(t, pages(2), entry["Pss"])
}

func TestCopiedPagesArePrivateAgain(t *testing.T) {
	a := kit.NewArena(t, 4)
	a.Anon(t, 0, 4, kit.RW, 0)
	a.Fill(t, 0, 4, 1)
	child := kit.Fork(t)
	a.Fill(t, 0, 4, 2)
	assert.Equal(t, pages(4), a.Smaps(t, kit.Me)[0]["Private_Dirty"])
	assert.Equal(t, pages(4), a.Smaps(t, kit.Me)[0]["Rss"])
	child.Exit(t, 0)
	assert.Equal(t, pages(4), a.Smaps(t, kit.Me)[0]["Private_Dirty"])
}

func TestLockedMemoryIsCounted(t *testing.T) {
	a := kit.NewArena(t, 4)
	a.Anon(t, 0, 4, kit.RW, unix.MAP_LOCKED)
	assert.Equal(t, pages(4), a.Smaps(t, kit.Me)[0]["Locked"])
}

// Each property of a mapping has a flag, and is without those of others.
func TestFlagsOfSmaps(t *testing.T) {
	advise := func(advice int) func(*testing.T, *kit.Arena) {
		return func(t *testing.T, a *kit.Arena) {
			a.Anon(t, 0, 2, kit.RW, 0)
			if e := kit.Me.Madvise(a.Page(0), kit.Len(2), advice); e != 0 {
				t.Errorf("madvise: %v", e)
			}
		}
	}
	anon := func(prot, flags int) func(*testing.T, *kit.Arena) {
		return func(t *testing.T, a *kit.Arena) { a.Map(t, 0, 2, prot, flags, -1, 0) }
	}
	file := func(prot, flags, open int) func(*testing.T, *kit.Arena) {
		return func(t *testing.T, a *kit.Arena) {
			a.Map(t, 0, 2, prot, flags, kit.Open(t, kit.Dirs()[0].NamedFile(t, 2), open), 0)
		}
	}
	for _, c := range []struct {
		name string
		make func(*testing.T, *kit.Arena)
		has  string
		not  string
	}{
		{"none", anon(0, private), "mr mw me", "rd wr ex sh ms"},
		{"read", anon(unix.PROT_READ, private), "rd mr mw me", "wr ex sh"},
		{"write", anon(kit.RW, private), "rd wr mr mw me", "ex sh ms"},
		{"exec", anon(unix.PROT_READ|unix.PROT_EXEC, private), "rd ex", "wr sh"},
		{"accountable", anon(kit.RW, private), "ac", ""},
		{"shared", anon(kit.RW, shared), "rd wr sh ms", ""},
		{"grows-down", anon(kit.RW, private|unix.MAP_GROWSDOWN), "gd", ""},
		{"locked", anon(kit.RW, private|unix.MAP_LOCKED), "lo", ""},
		{"noreserve", anon(kit.RW, private|unix.MAP_NORESERVE), "nr", "ac"},
		{"file-shared", file(kit.RW, unix.MAP_SHARED, unix.O_RDWR), "rd wr sh mr mw ms", ""},
		{"file-private", file(kit.RW, unix.MAP_PRIVATE, unix.O_RDONLY), "rd wr mr mw", "sh ms"},
		{"file-read-only", file(unix.PROT_READ, unix.MAP_SHARED, unix.O_RDONLY), "rd mr ms", "sh mw"},
		{"dontfork", advise(unix.MADV_DONTFORK), "dc", ""},
		{"sequential", advise(unix.MADV_SEQUENTIAL), "sr", "rr"},
		{"random", advise(unix.MADV_RANDOM), "rr", "sr"},
		{"dontdump", advise(unix.MADV_DONTDUMP), "dd", ""},
		{"hugepage", advise(unix.MADV_HUGEPAGE), "hg", "nh"},
		{"nohugepage", advise(unix.MADV_NOHUGEPAGE), "nh", "hg"},
		{"wipeonfork", advise(unix.MADV_WIPEONFORK), "wf", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := kit.NewArena(t, 2)
			c.make(t, a)
			found := strings.Fields(a.Smaps(t, kit.Me)[0]["VmFlags"])
			for flag := range strings.FieldsSeq(c.has) {
				t.Run(flag, func(t *testing.T) { assert.Contains(t, found, flag) })
			}
			for flag := range strings.FieldsSeq(c.not) {
				t.Run("not-"+flag, func(t *testing.T) { assert.NotContains(t, found, flag) })
			}
		})
	}
}

func TestFieldsOfSmaps(t *testing.T) {
	a := kit.NewArena(t, 2)
	a.Anon(t, 0, 2, kit.RW, 0)
	entry := a.Smaps(t, kit.Me)[0]
	for _, field := range []string{
		"Size", "KernelPageSize", "MMUPageSize", "Rss", "Pss", "Shared_Clean", "Shared_Dirty", "Private_Clean", "Private_Dirty", "Referenced",
		"Anonymous", "AnonHugePages", "Shared_Hugetlb", "Private_Hugetlb", "Swap", "Locked", "VmFlags",
	} {
		t.Run(field, func(t *testing.T) { assert.Contains(t, entry, field) })
	}
	t.Run("page-size", func(t *testing.T) {
		assert.Equal(t, pages(1), entry["KernelPageSize"])
		assert.Equal(t, pages(1), entry["MMUPageSize"])
	})
}

// The sum of all sizes is the process's.
func TestSumOfSmaps(t *testing.T) {
	child := still(t)
	data, err := os.ReadFile(child.Proc() + "/smaps")
	require.NoError(t, err)
	var size, rss int
	name := ""
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if first, _, _ := strings.Cut(line, " "); strings.Contains(first, "-") {
			name = line
		}
		if strings.HasSuffix(name, "[vsyscall]") {
			continue
		}
		if value, ok := strings.CutPrefix(line, "Size:"); ok {
			size += kilobytes(t, strings.TrimSpace(value))
		}
		if value, ok := strings.CutPrefix(line, "Rss:"); ok {
			rss += kilobytes(t, strings.TrimSpace(value))
		}
	}
	t.Run("size", func(t *testing.T) { assert.Equal(t, status(t, child, "VmSize"), uintptr(size)<<10) })
	t.Run("resident", func(t *testing.T) { assert.LessOrEqual(t, rss, size) })
}

func TestSmapsRollup(t *testing.T) {
	data, err := os.ReadFile(still(t).Proc() + "/smaps_rollup")
	require.NoError(t, err)
	assert.Contains(t, string(data), "[rollup]")
	assert.Contains(t, string(data), "Rss:")
}
