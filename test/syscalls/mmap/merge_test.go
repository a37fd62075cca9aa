// Claims which neighbours /proc/[pid]/maps shows as one mapping and which as several. Mappings that agree
// in all that maps and smaps show of them are one; only pages that nobody touched are merged here, since
// Linux keeps apart what it had given pages from different origins.
package mmap

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

// A piece is one call of mmap. file names what is mapped: "" anonymous memory, "f" and "g" files, "f2" a
// second descriptor of f opened anew, "fd" one that was duplicated.
type piece struct {
	at, pages   int
	prot, flags int
	file        string
	offset      int
}

func build(t *testing.T, a *kit.Arena, d kit.Dir, pieces []piece) {
	t.Helper()
	f := d.NamedFile(t, 8)
	files := map[string]int{"": -1, "f": kit.Open(t, f, unix.O_RDWR), "f2": kit.Open(t, f, unix.O_RDWR), "g": d.File(t, 8)}
	duplicate, err := unix.Dup(files["f"])
	require.NoError(t, err)
	t.Cleanup(func() { unix.Close(duplicate) })
	files["fd"] = duplicate
	for _, p := range pieces {
		a.Map(t, p.at, p.pages, p.prot, p.flags, files[p.file], p.offset)
	}
}

// ranges is the layout without names, which differ from run to run.
func ranges(t testing.TB, a *kit.Arena, actor *kit.Actor) []string {
	t.Helper()
	var found []string
	for _, l := range a.Maps(t, actor) {
		l.Name = ""
		found = append(found, a.Show(l))
	}
	return found
}

func TestNeighboursThatAreAlikeBecomeOne(t *testing.T) {
	private := unix.MAP_PRIVATE
	for name, c := range map[string]struct {
		pieces []piece
		want   []string
	}{
		// |--A--|--B--| -> |----A----|
		"appended":  {[]piece{{0, 2, rw, anon, "", 0}, {2, 2, rw, anon, "", 0}}, []string{"p0-p4 rw-p 0"}},
		"prepended": {[]piece{{2, 2, rw, anon, "", 0}, {0, 2, rw, anon, "", 0}}, []string{"p0-p4 rw-p 0"}},
		// |--A--|  new  |--B--| -> |--------A--------|
		"into the gap":             {[]piece{{0, 1, rw, anon, "", 0}, {2, 1, rw, anon, "", 0}, {1, 1, rw, anon, "", 0}}, []string{"p0-p3 rw-p 0"}},
		"over what differed":       {[]piece{{0, 4, rw, anon, "", 0}, {1, 2, ro, anon, "", 0}, {1, 2, rw, anon, "", 0}}, []string{"p0-p4 rw-p 0"}},
		"over half of a neighbour": {[]piece{{0, 2, rw, anon, "", 0}, {2, 2, ro, anon, "", 0}, {1, 2, ro, anon, "", 0}}, []string{"p0-p1 rw-p 0", "p1-p4 r--p 0"}},
		"no access":                {[]piece{{0, 1, none, anon, "", 0}, {1, 1, none, anon, "", 0}}, []string{"p0-p2 ---p 0"}},
		"file in order":            {[]piece{{0, 2, ro, private, "f", 1}, {2, 2, ro, private, "f", 3}}, []string{"p0-p4 r--p 1"}},
		"file prepended":           {[]piece{{2, 2, ro, private, "f", 3}, {0, 2, ro, private, "f", 1}}, []string{"p0-p4 r--p 1"}},
		"file into the gap":        {[]piece{{0, 1, rw, private, "f", 0}, {2, 1, rw, private, "f", 2}, {1, 1, rw, private, "f", 1}}, []string{"p0-p3 rw-p 0"}},
		"shared file in order":     {[]piece{{0, 2, rw, unix.MAP_SHARED, "f", 0}, {2, 2, rw, unix.MAP_SHARED, "f", 2}}, []string{"p0-p4 rw-s 0"}},
		"duplicated descriptor":    {[]piece{{0, 2, ro, private, "f", 0}, {2, 2, ro, private, "fd", 2}}, []string{"p0-p4 r--p 0"}},
		"locked":                   {[]piece{{0, 1, rw, anon | unix.MAP_LOCKED, "", 0}, {1, 1, rw, anon | unix.MAP_LOCKED, "", 0}}, []string{"p0-p2 rw-p 0"}},
		"populated":                {[]piece{{0, 1, rw, anon, "", 0}, {1, 1, rw, anon | unix.MAP_POPULATE, "", 0}}, []string{"p0-p2 rw-p 0"}},
	} {
		for _, d := range kit.Dirs() {
			t.Run(name+" "+d.Name, func(t *testing.T) {
				a := kit.NewArena(t, 8)
				build(t, a, d, c.pieces)
				kit.Say(t, "%v", ranges(t, a, kit.Me))
				assert.Equal(t, c.want, ranges(t, a, kit.Me))
			})
		}
	}
}

func TestNeighboursThatDifferStayApart(t *testing.T) {
	private := unix.MAP_PRIVATE
	for name, c := range map[string]struct {
		pieces []piece
		want   []string
	}{
		"protection":               {[]piece{{0, 1, rw, anon, "", 0}, {1, 1, ro, anon, "", 0}}, []string{"p0-p1 rw-p 0", "p1-p2 r--p 0"}},
		"a page between":           {[]piece{{0, 1, rw, anon, "", 0}, {2, 1, rw, anon, "", 0}}, []string{"p0-p1 rw-p 0", "p2-p3 rw-p 0"}},
		"anonymous and file":       {[]piece{{0, 1, rw, anon, "", 0}, {1, 1, rw, private, "f", 0}}, []string{"p0-p1 rw-p 0", "p1-p2 rw-p 0"}},
		"file skips a page":        {[]piece{{0, 1, ro, private, "f", 0}, {1, 1, ro, private, "f", 2}}, []string{"p0-p1 r--p 0", "p1-p2 r--p 2"}},
		"file repeats a page":      {[]piece{{0, 1, ro, private, "f", 0}, {1, 1, ro, private, "f", 0}}, []string{"p0-p1 r--p 0", "p1-p2 r--p 0"}},
		"file in reverse":          {[]piece{{0, 1, ro, private, "f", 1}, {1, 1, ro, private, "f", 0}}, []string{"p0-p1 r--p 1", "p1-p2 r--p 0"}},
		"two files":                {[]piece{{0, 1, ro, private, "f", 0}, {1, 1, ro, private, "g", 1}}, []string{"p0-p1 r--p 0", "p1-p2 r--p 1"}},
		"shared and private":       {[]piece{{0, 1, ro, private, "f", 0}, {1, 1, ro, unix.MAP_SHARED, "f", 1}}, []string{"p0-p1 r--p 0", "p1-p2 r--s 1"}},
		"two shared memories":      {[]piece{{0, 1, rw, shared, "", 0}, {1, 1, rw, shared, "", 0}}, []string{"p0-p1 rw-s 0", "p1-p2 rw-s 0"}},
		"locked and not":           {[]piece{{0, 1, rw, anon, "", 0}, {1, 1, rw, anon | unix.MAP_LOCKED, "", 0}}, []string{"p0-p1 rw-p 0", "p1-p2 rw-p 0"}},
		"grows down and not":       {[]piece{{0, 1, rw, anon, "", 0}, {1, 1, rw, anon | unix.MAP_GROWSDOWN, "", 0}}, []string{"p0-p1 rw-p 0", "p1-p2 rw-p 0"}},
		"file opened twice":        {[]piece{{0, 1, ro, private, "f", 0}, {1, 1, ro, private, "f2", 1}}, []string{"p0-p1 r--p 0", "p1-p2 r--p 1"}},
		"shared file opened twice": {[]piece{{0, 1, rw, unix.MAP_SHARED, "f", 0}, {1, 1, rw, unix.MAP_SHARED, "f2", 1}}, []string{"p0-p1 rw-s 0", "p1-p2 rw-s 1"}},
	} {
		for _, d := range kit.Dirs() {
			t.Run(name+" "+d.Name, func(t *testing.T) {
				a := kit.NewArena(t, 8)
				build(t, a, d, c.pieces)
				kit.Say(t, "%v", ranges(t, a, kit.Me))
				assert.Equal(t, c.want, ranges(t, a, kit.Me))
			})
		}
	}
}

// Memory that fork leaves out does not merge with memory that it copies.
func TestForkAdviceKeepsNeighboursApart(t *testing.T) {
	a := kit.NewArena(t, 2)
	a.Anon(t, 0, 1, rw, 0)
	require.Zero(t, kit.Me.Madvise(a.Page(0), kit.Len(1), unix.MADV_DONTFORK))
	a.Anon(t, 1, 1, rw, 0)
	kit.Say(t, "%v", a.Layout(t, kit.Me))
	assert.Len(t, a.Maps(t, kit.Me), 2)
}

// Contents stay where they are when mappings become one.
func TestMergingMovesNothing(t *testing.T) {
	a := kit.NewArena(t, 3)
	a.Anon(t, 0, 1, rw, 0)
	a.Fill(t, 0, 1, 1)
	a.Anon(t, 2, 1, rw, 0)
	a.Fill(t, 2, 1, 3)
	a.Anon(t, 1, 1, rw, 0)
	kit.Say(t, "%v", a.Bytes(kit.Me, 0, 3))
	assert.Equal(t, []string{"01", "00", "03"}, a.Bytes(kit.Me, 0, 3))
}
