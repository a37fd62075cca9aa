// Package matrix is a matrix of errors: for every memory call, every combination of unaligned, zero,
// overflowing, unmapped, partly mapped, reserved and top-of-address-space arguments. What each returns,
// and what is mapped afterwards, goes into the transcript, so the reference kernel is what it is
// compared with. A call that fails, and is not documented to stop half-way, must change nothing: that is
// asserted.
//
// A result is "ok", a number, a place or an error; "#" and eight digits follow if the scene has changed.
// They stand for its new layout and contents, which MATRIX_SHOW=1 prints.
package matrix

import (
	"bytes"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"sentrymm/test/syscalls/kit"
)

func TestMain(m *testing.M) { kit.Main(m) }

// A scene is an arena with mappings of every kind, always the same.
type scene struct {
	t *testing.T
	a *kit.Arena

	file, readOnly, writeOnly, short, dir, pipe int
	segment                                     int // of shared memory, of four pages
	path                                        string

	maps     *os.File
	buffer   []byte
	standard string  // the state of a fresh scene
	touched  bool    // since prepare
	scratch  uintptr // memory for results, outside of the arena
}

// pages is the length of the arena. See places for what is where.
const pages = 64

var P = kit.Len(1)

// newScene opens what scenes are made of. The scene itself is made by prepare.
func newScene(t *testing.T) *scene {
	t.Helper()
	path := kit.Dirs()[0].NamedFile(t, 8)
	short := kit.Dirs()[0].NamedFile(t, 2)
	segment, err := unix.SysvShmGet(unix.IPC_PRIVATE, 4*kit.PageSize, unix.IPC_CREAT|0o600)
	require.NoError(t, err)
	t.Cleanup(func() { unix.SysvShmCtl(segment, unix.IPC_RMID, nil) })
	maps, err := os.Open("/proc/self/maps")
	require.NoError(t, err)
	t.Cleanup(func() { maps.Close() })
	pipe, _ := kit.Pipe(t)
	s := &scene{
		t: t, a: kit.NewArena(t, pages), path: path,
		file: kit.Open(t, path, unix.O_RDWR), readOnly: kit.Open(t, path, unix.O_RDONLY), writeOnly: kit.Open(t, path, unix.O_WRONLY),
		short: kit.Open(t, short, unix.O_RDWR), dir: kit.Open(t, kit.Dirs()[0].Path, unix.O_RDONLY), pipe: pipe,
		segment: segment, maps: maps, buffer: make([]byte, 1<<16), touched: true,
	}
	// Far from the end of the address space, or what follows would matter.
	r := call(unix.SYS_MMAP, 0x4300_0000_0000, kit.Len(64), kit.RW, unix.MAP_SHARED|unix.MAP_ANONYMOUS, ^uintptr(0), 0)
	require.True(t, r.OK(), r)
	t.Cleanup(func() { call(unix.SYS_MUNMAP, r.Value, kit.Len(64)) })
	s.scratch = r.Value
	t.Cleanup(func() { call(unix.SYS_MUNMAP, s.a.Page(-1), kit.Len(2*pages+2)) })
	s.prepare()
	s.standard = s.state()
	return s
}

// prepare makes the scene anew if it has been touched.
func (s *scene) prepare() {
	if !s.touched {
		return
	}
	s.touched = false
	const private, shared = unix.MAP_PRIVATE | unix.MAP_FIXED, unix.MAP_SHARED | unix.MAP_FIXED
	const anon = unix.MAP_ANONYMOUS
	// Cases map up to 64 pages from within the arena on.
	call(unix.SYS_MUNMAP, s.a.Page(-1), kit.Len(2*pages+2))
	for _, m := range []struct{ page, prot, flags, fd, offset int }{
		{0, kit.RW, private | anon, -1, 0},
		{4, unix.PROT_READ, private | anon, -1, 0},
		// 8 to 12 is a hole.
		{12, kit.RW, shared, s.file, 0},
		{16, unix.PROT_READ, shared, s.readOnly, 0},
		{20, unix.PROT_NONE, private | anon | unix.MAP_NORESERVE, -1, 0},
		{24, kit.RW, private, s.file, 1},
		{28, kit.RW, shared | anon, -1, 0},
		{32, kit.RW, private | anon | unix.MAP_GROWSDOWN, -1, 0},
		{36, kit.RW, private | anon | unix.MAP_LOCKED, -1, 0},
		{40, kit.RW, shared, s.short, 0},
		// 44 to 48 is a hole, and so is all from 52 on.
	} {
		if r := call(unix.SYS_MMAP, s.a.Page(m.page), kit.Len(4), uintptr(m.prot), uintptr(m.flags), uintptr(m.fd), kit.Len(m.offset)); !r.OK() {
			s.t.Fatalf("preparing the scene: mmap of page %d: %v", m.page, r)
		}
	}
	if r := call(unix.SYS_SHMAT, uintptr(s.segment), s.a.Page(48), 0); !r.OK() || r.Value != s.a.Page(48) {
		s.t.Fatalf("preparing the scene: shmat: %v", r)
	}
	for _, page := range written {
		*(*byte)(at(s.a.Page(page))) = 0x80 + byte(page)
	}
}

// written are pages that hold something of their own.
var written = []int{0, 3, 24, 26, 28, 32, 36, 48}

// at converts an address that Go knows nothing of.
func at(addr uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&addr)) }

// call makes a system call that does not block.
func call(nr uintptr, args ...uintptr) kit.Result {
	var a [6]uintptr
	copy(a[:], args)
	value, _, errno := syscall.RawSyscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5])
	return kit.Result{Value: value, Errno: errno}
}

// state is what is mapped, and, if that is as in a fresh scene, what is in the pages. Where one mapping
// is continued by another, whether they are one line or two is left out: locks and advice split them,
// and that is for other suites.
func (s *scene) state() string {
	layout := s.layout()
	if s.standard == "" || strings.HasPrefix(s.standard, layout+"\n") {
		for _, page := range written {
			layout += fmt.Sprintf("\n%d:%v", page, s.a.Describe(kit.Me.Load(s.a.Page(page))))
		}
	}
	return layout
}

func (s *scene) layout() string {
	n := 0
	for {
		k, err := s.maps.ReadAt(s.buffer[n:], int64(n))
		n += k
		if err == io.EOF || k == 0 || s.beyond(s.buffer[:n]) {
			break
		}
	}
	var out strings.Builder
	var last kit.Line
	for line := range bytes.Lines(s.buffer[:bytes.LastIndexByte(s.buffer[:n], '\n')+1]) {
		dash := bytes.IndexByte(line, '-')
		start, err := strconv.ParseUint(string(line[:dash]), 16, 64)
		if err != nil || uintptr(start) < s.a.Base-P || uintptr(start) >= s.a.End() {
			continue
		}
		parsed, err := kit.ParseMaps(line)
		if err != nil || len(parsed) != 1 {
			s.t.Fatalf("maps: %q: %v", line, err)
		}
		l := parsed[0]
		continues := l.Start == last.End && l.Perms == last.Perms && l.Inode == last.Inode && (l.Inode == 0 || l.Offset == last.Offset+uint64(last.End-last.Start))
		if continues {
			last.End = l.End
			continue
		}
		s.show(&out, last)
		last = l
	}
	s.show(&out, last)
	return out.String()
}

// beyond reports whether the last whole line of maps is behind the arena.
func (s *scene) beyond(text []byte) bool {
	text = text[:bytes.LastIndexByte(text, '\n')+1]
	lines := bytes.Split(text, []byte("\n"))
	if len(lines) < 2 {
		return false
	}
	digits, _, _ := bytes.Cut(lines[len(lines)-2], []byte("-"))
	start, err := strconv.ParseUint(string(digits), 16, 64)
	return err == nil && uintptr(start) >= s.a.End()
}

func (s *scene) show(out *strings.Builder, l kit.Line) {
	if l.End != 0 {
		fmt.Fprintf(out, "[%s,%s %s %d]", s.a.Where(l.Start), s.a.Where(l.End), l.Perms, l.Offset/uint64(P))
	}
}

// in makes a subtest the one that failures are reported to.
func (s *scene) in(t *testing.T) {
	parent := s.t
	s.t = t
	t.Cleanup(func() { s.t = parent })
}

// outcome is what a case adds to the transcript: the result, and the state if it changed. A call
// that is atomic changes nothing if it fails.
func (s *scene) outcome(shown string, failed, atomic bool) string {
	state := s.state()
	changed := state != s.standard
	s.touched = changed || !failed || !atomic
	if !changed {
		return shown
	}
	if failed && atomic {
		s.t.Errorf("%s, but the scene has changed: %s", shown, state)
	}
	return shown + s.mark(state)
}

// mark stands for a state.
func (s *scene) mark(state string) string {
	h := fnv.New32a()
	io.WriteString(h, state)
	if os.Getenv("MATRIX_SHOW") != "" {
		return "#" + strings.ReplaceAll(state, "\n", " ")
	}
	return fmt.Sprintf("#%08x", h.Sum32())
}
