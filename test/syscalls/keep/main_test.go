// Failure keeps the old mapping: whatever makes a call fail that would have replaced a mapping, the old one, its
// contents, its locks and the counters are as they were. Linux may leave a mapping split in two that would be
// one; nothing else may tell that the call was made.
//
// This file holds the process that all of it happens in, and what can be seen of it.
package keep

import (
	"bufio"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

func TestMain(m *testing.M) { kit.Main(m) }

const (
	anon   = unix.MAP_PRIVATE | unix.MAP_ANONYMOUS
	shared = unix.MAP_SHARED | unix.MAP_ANONYMOUS
	fixed  = unix.MAP_FIXED
	none   = unix.PROT_NONE
	ro     = unix.PROT_READ
	rw     = kit.RW

	shmRemap = 0o40000 // SHM_REMAP

	oldAt, oldPages = 2, 4 // where the old mappings are
)

// A victim is a child without capabilities, whose mappings calls try to replace.
type victim struct {
	*kit.Actor
	arena *kit.Arena
	files *files
}

// Arguments of capset(2) that leave no capability. They are variables of the package, so that a forked child
// finds them where they are here.
var (
	capHeader = unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	noCaps    [2]unix.CapUserData
)

func newVictim(t testing.TB, f *files) *victim {
	t.Helper()
	// What the test's process has allocated is in the child too, and counted whenever smaps is read.
	var memory runtime.MemStats
	if runtime.ReadMemStats(&memory); memory.HeapAlloc > 4<<20 {
		debug.FreeOSMemory()
	}
	v := &victim{arena: kit.NewArena(t, 16), files: f}
	v.Actor = kit.Fork(t)
	r := v.Call(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&capHeader)), uintptr(unsafe.Pointer(&noCaps)))
	require.True(t, r.OK(), "capset: %v", r)
	return v
}

// mmap maps pages [i, i+n) of the arena over what is there.
func (v *victim) mmap(i, n, prot, flags, fd, offset int) unix.Errno {
	return v.Mmap(v.arena.Page(i), kit.Len(n), prot, flags|fixed, fd, int64(kit.Len(offset))).Errno
}

func (v *victim) mustMap(t testing.TB, i, n, prot, flags, fd, offset int) {
	t.Helper()
	require.Zero(t, v.mmap(i, n, prot, flags, fd, offset), "mmap")
}

// fill stores first, first+1 ... in the pages [i, i+n).
func (v *victim) fill(t testing.TB, i, n int, first byte) {
	t.Helper()
	for k := range n {
		require.False(t, v.Store(v.arena.Page(i+k), first+byte(k)).Faulted())
	}
}

// withLimit makes a call under a soft limit, and lifts that again.
func (v *victim) withLimit(t testing.TB, resource int, value uint64, call func() unix.Errno) unix.Errno {
	t.Helper()
	var old unix.Rlimit
	require.NoError(t, unix.Prlimit(v.Pid(), resource, nil, &old))
	require.NoError(t, unix.Prlimit(v.Pid(), resource, &unix.Rlimit{Cur: value, Max: old.Max}, nil))
	e := call()
	require.NoError(t, unix.Prlimit(v.Pid(), resource, &old, nil))
	return e
}

// A state is all that can be seen of the arena, its files and its process.
type state struct {
	Mappings         []string // as maps shows them, split ones joined
	Flags            []string // page by page
	Bytes            []string // of each page that is mapped
	Files            string   // what the pages of the files begin with
	Resident, Locked int      // kB
	Size, Data, Lock string   // of the process
	Attached         int      // how often the segment is attached, over the number of its mappings
}

// anyMemory is the state without the inodes of shared memory, which is another one each time.
func (s state) anyMemory() state {
	s.Mappings = slices.Clone(s.Mappings)
	for i, m := range s.Mappings {
		s.Mappings[i] = memoryInode.ReplaceAllString(m, "$1")
	}
	return s
}

var memoryInode = regexp.MustCompile(`\d+ (/dev/zero)`)

// flagsOfInterest are those of smaps that say what a mapping is, and not how the kernel deals with it.
const flagsOfInterest = " rd wr ex sh mr mw me ms gd lo dc lf "

func (v *victim) see(t testing.TB) state {
	t.Helper()
	s := state{Files: v.files.contents(t), Attached: v.files.attached(t)}
	status, err := os.ReadFile(v.Proc() + "/status")
	require.NoError(t, err)
	eachField(status, func(key, value string) {
		switch key {
		case "VmSize":
			s.Size = value
		case "VmData":
			s.Data = value
		case "VmLck":
			s.Lock = value
		}
	})
	for _, l := range v.seeMappings(t, &s) {
		s.Bytes = append(s.Bytes, v.arena.Bytes(v.Actor, v.index(l), pagesOf(l))...)
		if strings.Contains(l.Name, "SYSV") {
			s.Attached--
		}
	}
	return s
}

// index is the page that a mapping begins with.
func (v *victim) index(l kit.Line) int { return int(l.Start-v.arena.Base) / kit.PageSize }

func pagesOf(l kit.Line) int { return int(l.End-l.Start) / kit.PageSize }

// seeMappings fills in what smaps says, and returns its lines.
func (v *victim) seeMappings(t testing.TB, s *state) []kit.Line {
	t.Helper()
	f, err := os.Open(v.Proc() + "/smaps")
	require.NoError(t, err)
	defer f.Close()
	var lines []kit.Line
	inside := false
	for scanner := bufio.NewScanner(f); scanner.Scan(); {
		key, value, isField := strings.Cut(strings.TrimSpace(scanner.Text()), ":")
		if !isField || strings.Contains(key, " ") {
			line, err := kit.ParseMaps(scanner.Bytes())
			require.NoError(t, err)
			require.Len(t, line, 1)
			if line[0].Start >= v.arena.End() {
				break // Go's heap comes next, whose pages take long to count
			}
			clipped := v.arena.Clip(line)
			inside = len(clipped) > 0
			lines = append(lines, clipped...)
			continue
		}
		if !inside {
			continue
		}
		switch key {
		case "Rss":
			s.Resident += number(t, value)
		case "Locked":
			s.Locked += number(t, value)
		case "VmFlags":
			for range pagesOf(lines[len(lines)-1]) {
				s.Flags = append(s.Flags, interesting(value))
			}
		}
	}
	s.Mappings = v.joined(lines)
	return lines
}

func eachField(text []byte, see func(key, value string)) {
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, ":"); ok {
			see(key, strings.TrimSpace(value))
		}
	}
}

func number(t testing.TB, value string) (n int) {
	t.Helper()
	_, err := fmt.Sscan(value, &n)
	require.NoError(t, err)
	return n
}

func interesting(flags string) string {
	var kept []string
	for _, f := range strings.Fields(flags) {
		if strings.Contains(flagsOfInterest, " "+f+" ") {
			kept = append(kept, f)
		}
	}
	return strings.Join(kept, " ")
}

// joined shows lines, of which those that continue each other are one.
func (v *victim) joined(lines []kit.Line) []string {
	var whole []kit.Line
	for _, l := range lines {
		if n := len(whole); n > 0 && continues(whole[n-1], l) {
			whole[n-1].End = l.End
			continue
		}
		whole = append(whole, l)
	}
	var shown []string
	for _, l := range whole {
		shown = append(shown, fmt.Sprintf("%s %s %d %s", v.arena.Show(l), l.Device, l.Inode, l.Name))
	}
	return shown
}

func continues(l, r kit.Line) bool {
	if l.End != r.Start || l.Perms != r.Perms || l.Device != r.Device || l.Inode != r.Inode || l.Name != r.Name {
		return false
	}
	return l.Inode == 0 || l.Offset+uint64(l.End-l.Start) == r.Offset
}
