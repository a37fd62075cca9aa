// The line of maps of every sort of mapping.
package procfs

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"sentrymm/test/syscalls/kit"
)

func TestPermissions(t *testing.T) {
	for _, c := range []struct {
		prot int
		want string
	}{
		{unix.PROT_NONE, "---"},
		{unix.PROT_READ, "r--"},
		{unix.PROT_WRITE, "-w-"},
		{unix.PROT_EXEC, "--x"},
		{kit.RW, "rw-"},
		{unix.PROT_READ | unix.PROT_EXEC, "r-x"},
		{kit.RW | unix.PROT_EXEC, "rwx"},
	} {
		t.Run(c.want, func(t *testing.T) {
			a := kit.NewArena(t, 4)
			a.Map(t, 0, 1, c.prot, private, -1, 0)
			a.Map(t, 2, 1, c.prot, shared, -1, 0)
			assert.Equal(t, []string{"p0-p1 " + c.want + "p 0", "p2-p3 " + c.want + "s 0 zero (deleted)"}, a.Layout(t, kit.Me))
		})
	}
}

// one is the only line of an arena.
func one(t *testing.T, a *kit.Arena) kit.Line {
	t.Helper()
	all := a.Maps(t, kit.Me)
	require.Len(t, all, 1)
	return all[0]
}

func TestAnonymousLine(t *testing.T) {
	a := kit.NewArena(t, 4)
	a.Anon(t, 1, 2, kit.RW, 0)
	assert.Equal(t, kit.Line{Start: a.Page(1), End: a.Page(3), Perms: "rw-p", Device: "00:00"}, one(t, a))
}

func TestSharedAnonymousLine(t *testing.T) {
	a := kit.NewArena(t, 4)
	a.Map(t, 1, 2, kit.RW, shared, -1, 0)
	l := one(t, a)
	assert.Equal(t, "/dev/zero (deleted)", l.Name)
	assert.NotZero(t, l.Inode)
}

func TestFileLine(t *testing.T) {
	for name, flags := range map[string]int{"private": unix.MAP_PRIVATE, "shared": unix.MAP_SHARED} {
		t.Run(name, func(t *testing.T) {
			a := kit.NewArena(t, 4)
			path, fd := named(t, "a file with spaces")
			a.Map(t, 1, 2, kit.RW, flags, fd, 1)
			l := one(t, a)
			assert.Equal(t, path, l.Name)
			assert.EqualValues(t, P, l.Offset)
		})
	}
}

// Device and inode are those that stat shows, on a file system of its own.
func TestFileLineHasTheInode(t *testing.T) {
	kit.EachDir(t, func(t *testing.T, d kit.Dir) {
		a := kit.NewArena(t, 4)
		fd := d.File(t, 1)
		a.Map(t, 1, 1, unix.PROT_READ, unix.MAP_SHARED, fd, 0)
		var stat unix.Stat_t
		require.NoError(t, unix.Fstat(fd, &stat))
		assert.Equal(t, stat.Ino, one(t, a).Inode)
	})
}

func TestDeletedFileLine(t *testing.T) {
	kit.EachDir(t, func(t *testing.T, d kit.Dir) {
		a := kit.NewArena(t, 4)
		path := d.NamedFile(t, 1)
		a.Map(t, 1, 1, unix.PROT_READ, unix.MAP_SHARED, kit.Open(t, path, unix.O_RDONLY), 0)
		assert.Equal(t, path, one(t, a).Name)
		require.NoError(t, os.Remove(path))
		assert.Equal(t, path+" (deleted)", one(t, a).Name)
	})
}

func TestRenamedFileLine(t *testing.T) {
	kit.EachDir(t, func(t *testing.T, d kit.Dir) {
		a := kit.NewArena(t, 4)
		path := d.NamedFile(t, 1)
		a.Map(t, 1, 1, unix.PROT_READ, unix.MAP_SHARED, kit.Open(t, path, unix.O_RDONLY), 0)
		require.NoError(t, os.Rename(path, path+"-new"))
		defer os.Remove(path + "-new")
		assert.Equal(t, path+"-new", one(t, a).Name)
	})
}

// A newline in a name would look like another line.
func TestNewlineInNameIsEscaped(t *testing.T) {
	a := kit.NewArena(t, 4)
	path, fd := named(t, "two\nlines")
	a.Map(t, 1, 1, unix.PROT_READ, unix.MAP_SHARED, fd, 0)
	assert.Equal(t, strings.ReplaceAll(path, "\n", `\012`), one(t, a).Name)
}

func TestMemfdLine(t *testing.T) {
	a := kit.NewArena(t, 4)
	a.Map(t, 1, 1, unix.PROT_READ, unix.MAP_SHARED, kit.Memfd(t, 1, 0), 0)
	assert.Equal(t, "/memfd:kit (deleted)", one(t, a).Name)
}

func segment(t *testing.T, a *kit.Arena, page int) int {
	t.Helper()
	id, err := unix.SysvShmGet(unix.IPC_PRIVATE, 2*kit.PageSize, unix.IPC_CREAT|0o600)
	require.NoError(t, err)
	t.Cleanup(func() { unix.SysvShmCtl(id, unix.IPC_RMID, nil) })
	require.Equal(t, kit.Result{Value: a.Page(page)}, kit.Me.Call(unix.SYS_SHMAT, uintptr(id), a.Page(page), 0))
	return id
}

func TestSegmentLine(t *testing.T) {
	a := kit.NewArena(t, 4)
	id := segment(t, a, 1)
	l := one(t, a)
	assert.Equal(t, "rw-s", l.Perms)
	assert.EqualValues(t, id, l.Inode, "the identifier")
}

// A segment has no name in the file system that is shown: it counts as deleted.
func TestSegmentName(t *testing.T) {
	a := kit.NewArena(t, 4)
	segment(t, a, 1)
	assert.Equal(t, "/SYSV00000000 (deleted)", one(t, a).Name)
}

// A private mapping of no file can have a name.
func TestNamedAnonymousLine(t *testing.T) {
	a := kit.NewArena(t, 4)
	a.Anon(t, 0, 4, kit.RW, 0)
	name := [...]byte{'n', 'a', 'm', 'e', 0}
	r := kit.Me.Call(unix.SYS_PRCTL, unix.PR_SET_VMA, unix.PR_SET_VMA_ANON_NAME, a.Page(1), kit.Len(2), uintptr(unsafe.Pointer(&name)))
	if r.Errno == unix.EINVAL {
		t.Skip("PR_SET_VMA_ANON_NAME needs a kernel with CONFIG_ANON_VMA_NAME")
	}
	require.True(t, r.OK())
	assert.Equal(t, []string{"p0-p1 rw-p 0", "p1-p3 rw-p 0 [anon:name]", "p3-p4 rw-p 0"}, a.Layout(t, kit.Me))
}

// with are the lines of a name.
func with(all []kit.Line, name string) (found []kit.Line) {
	for _, l := range all {
		if l.Name == name {
			found = append(found, l)
		}
	}
	return found
}

func TestStackLine(t *testing.T) {
	stack := with(lines(t, kit.Me), "[stack]")
	require.Len(t, stack, 1)
	assert.Equal(t, "rw-p", stack[0].Perms)
	// The arguments are on the first thread's stack.
	argument := uintptr(unsafe.Pointer(unsafe.StringData(os.Args[0])))
	assert.True(t, stack[0].Start <= argument && argument < stack[0].End)
}

func TestHeapLine(t *testing.T) {
	child := kit.Fork(t)
	start := child.Brk(0)
	require.Equal(t, start+4*P, child.Brk(start+4*P))
	heap := with(lines(t, child), "[heap]")
	require.NotEmpty(t, heap)
	assert.Equal(t, start+4*P, heap[len(heap)-1].End)
	assert.Equal(t, "rw-p", heap[0].Perms)
	require.Equal(t, start+P, child.Brk(start+P))
	heap = with(lines(t, child), "[heap]")
	assert.Equal(t, start+P, heap[len(heap)-1].End)
}

func TestVdsoLine(t *testing.T) {
	vdso := with(lines(t, kit.Me), "[vdso]")
	require.Len(t, vdso, 1)
	assert.Equal(t, "r-xp", vdso[0].Perms)
}

func TestProgramLine(t *testing.T) {
	path, err := os.Readlink("/proc/self/exe")
	require.NoError(t, err)
	text := slices.IndexFunc(lines(t, kit.Me), func(l kit.Line) bool { return l.Name == path && l.Perms == "r-xp" })
	assert.GreaterOrEqual(t, text, 0, "no code of %s", filepath.Base(path))
}

// The columns, as programs take them apart.
func TestFormatOfALine(t *testing.T) {
	data, err := os.ReadFile("/proc/self/maps")
	require.NoError(t, err)
	form := regexp.MustCompile(`^[0-9a-f]{8,}-[0-9a-f]{8,} [r-][w-][x-][ps] [0-9a-f]{8,} [0-9a-f]{2,}:[0-9a-f]{2,} \d+ ( *\S.*)?$`)
	for line := range strings.Lines(string(data)) {
		assert.Regexp(t, form, strings.TrimSuffix(line, "\n"))
	}
}

// Names begin in the 74th column, where addresses have twelve digits or less.
func TestColumnOfNames(t *testing.T) {
	data, err := os.ReadFile("/proc/self/maps")
	require.NoError(t, err)
	for line := range strings.Lines(string(data)) {
		if at := strings.IndexAny(line, "/["); at >= 0 && !strings.Contains(line, "vsyscall") {
			assert.Equal(t, 73, at, "%s", line)
		}
	}
}

func TestLinesAreInOrder(t *testing.T) {
	last := uintptr(0)
	for _, l := range lines(t, kit.Me) {
		assert.LessOrEqual(t, last, l.Start)
		assert.Less(t, l.Start, l.End)
		assert.Zero(t, l.Start%P)
		assert.Zero(t, l.End%P)
		last = l.End
	}
}
