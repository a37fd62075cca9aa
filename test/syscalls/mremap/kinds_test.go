// Every way to call mremap, on a mapping of every kind: where it is then, what is there, what is left at
// the old place.
package mremap

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"sentrymm/test/syscalls/kit"
)

// The mapping is pages [4,8) of the arena. A file's are from its page 1 on.
const (
	first = 4
	size  = 4
)

// A kind is a sort of mapping.
type kind struct {
	name string
	make func(t *testing.T, a *kit.Arena)
	// beyond is what page k of the mapping holds before anybody writes to it.
	beyond func(k int) string
	shared bool
	grows  bool // downwards, when accessed below
}

func zeros(int) string        { return "00" }
func ofFile(k int) string     { return fmt.Sprintf("%02x", kit.PageByte(1+k)) }
func zerosOrBus(k int) string { return map[bool]string{true: "00", false: "SIGBUS"}[k < size] }

var kinds = []kind{
	{"anon", mapped(unix.MAP_PRIVATE|unix.MAP_ANONYMOUS, nil), zeros, false, false},
	{"anon-locked", mapped(unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_LOCKED, nil), zeros, false, false},
	{"anon-grows-down", mapped(unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_GROWSDOWN, nil), zeros, false, true},
	{"anon-shared", mapped(unix.MAP_SHARED|unix.MAP_ANONYMOUS, nil), zerosOrBus, true, false},
	{"file", mapped(unix.MAP_PRIVATE, file), ofFile, false, false},
	{"file-shared", mapped(unix.MAP_SHARED, file), ofFile, true, false},
	{"memfd", mapped(unix.MAP_PRIVATE, memfd), ofFile, false, false},
	{"memfd-shared", mapped(unix.MAP_SHARED, memfd), ofFile, true, false},
	{"shm", attached, zerosOrBus, true, false},
}

func memfd(t testing.TB, pages int) int { return kit.Memfd(t, pages, 0) }

func mapped(flags int, open func(testing.TB, int) int) func(*testing.T, *kit.Arena) {
	return func(t *testing.T, a *kit.Arena) {
		fd := -1
		if open != nil {
			fd = open(t, 12)
		}
		a.Map(t, first, size, kit.RW, flags, fd, map[bool]int{true: 1}[open != nil])
	}
}

func attached(t *testing.T, a *kit.Arena) {
	id, err := unix.SysvShmGet(unix.IPC_PRIVATE, size*kit.PageSize, unix.IPC_CREAT|0o600)
	require.NoError(t, err)
	r := kit.Me.Call(unix.SYS_SHMAT, uintptr(id), a.Page(first), 0)
	_, err = unix.SysvShmCtl(id, unix.IPC_RMID, nil)
	require.NoError(t, err)
	require.True(t, r.OK())
}

// A way is one call: of the pages [from,from+old) of the mapping, counted from its first.
type way struct {
	name           string
	from, old, new int
	flags, to      int // to is a page of the arena
	obstacle       int // a page of the arena where something else is mapped, if not 0
	want           string
}

var ways = []way{
	{"same-size", 0, 4, 4, 0, 0, 0, "p4"},
	{"shrink", 0, 4, 2, 0, 0, 0, "p4"},
	{"shrink-middle", 1, 2, 1, 0, 0, 0, "p5"},
	{"shrink-may-move", 0, 4, 1, may, 0, 0, "p4"},
	{"grow", 0, 4, 6, 0, 0, 0, "p4"},
	{"grow-end", 2, 2, 4, 0, 0, 0, "p6"},
	{"grow-blocked", 0, 4, 6, 0, 0, 9, "ENOMEM"},
	{"grow-middle", 1, 2, 3, 0, 0, 0, "ENOMEM"},
	{"grow-may-move", 0, 4, 6, may, 0, 0, "p4"},
	{"grow-blocked-may-move", 0, 4, 6, may, 0, 9, "elsewhere"},
	{"grow-middle-may-move", 1, 2, 3, may, 0, 0, "elsewhere"},
	{"move", 0, 4, 4, fixed, 16, 0, "p16"},
	{"move-first", 0, 1, 1, fixed, 16, 0, "p16"},
	{"move-middle", 1, 2, 2, fixed, 16, 0, "p16"},
	{"move-last", 3, 1, 1, fixed, 16, 0, "p16"},
	{"move-shrink", 0, 4, 2, fixed, 16, 0, "p16"},
	{"move-shrink-middle", 1, 2, 1, fixed, 16, 0, "p16"},
	{"move-grow", 0, 4, 6, fixed, 16, 0, "p16"},
	{"move-grow-middle", 1, 2, 5, fixed, 16, 0, "p16"},
	{"move-below", 0, 4, 4, fixed, 0, 0, "p0"},
	{"move-over-other", 0, 4, 4, fixed, 16, 17, "p16"},
	{"move-over-own-end", 0, 2, 2, fixed, 6, 0, "p6"},
	{"move-over-own-start", 2, 2, 2, fixed, 4, 0, "p4"},
	{"overlap", 0, 4, 4, fixed, 6, 0, "EINVAL"},
}

func TestEveryWayWithEveryKind(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			for _, w := range ways {
				t.Run(w.name, func(t *testing.T) { remap(t, k, w) })
			}
		})
	}
}

func remap(t *testing.T, k kind, w way) {
	a := kit.NewArena(t, 26)
	k.make(t, a)
	a.Fill(t, first, size, 0x10)
	if w.obstacle != 0 {
		a.Anon(t, w.obstacle, 1, unix.PROT_READ, 0)
	}
	before := layout(t, a)

	r := kit.Me.Mremap(a.Page(first+w.from), kit.Len(w.old), kit.Len(w.new), w.flags, a.Page(w.to))
	kit.Say(t, "%s", result(a, r))
	kit.Say(t, "%q", layout(t, a))
	require.Equal(t, w.want, result(a, r))
	if !r.OK() {
		assert.Equal(t, before, layout(t, a), "a refused call changes nothing")
		assert.Equal(t, []string{"10", "11", "12", "13"}, contents(kit.Me, a.Page(first), size))
		return
	}
	if w.want == "elsewhere" {
		unmapAfter(t, r.Value, w.new)
	}
	assert.Equal(t, expectAt(k, w), contents(kit.Me, r.Value, w.new), "at the new place")
	if r.Value != a.Page(first+w.from) {
		checkSource(t, a, k, w)
	}
	for i := range min(w.old, w.new) {
		if got := kit.Me.Store(r.Value+kit.Len(i)+1, 0x77); got.Faulted() {
			t.Errorf("page %d cannot be written to: %v", i, got.SignalName())
		}
	}
}

// expectAt is what the new place holds: the old pages, then new ones.
func expectAt(k kind, w way) []string {
	var want []string
	for j := range w.new {
		page := w.from + j
		switch {
		case page < size && (j < w.old || k.shared || w.want == "p4" || w.want == "p6" && w.flags == 0):
			want = append(want, fmt.Sprintf("%02x", 0x10+page))
		case k.shared || k.beyond(0) != "00":
			want = append(want, k.beyond(page))
		default:
			want = append(want, "00")
		}
	}
	return want
}

// checkSource claims what a move leaves: nothing, or with MREMAP_DONTUNMAP a mapping as if it were new.
func checkSource(t *testing.T, a *kit.Arena, k kind, w way) {
	t.Helper()
	for page := range size {
		at := first + page
		if w.to <= at && at < w.to+w.new && w.flags&unix.MREMAP_FIXED != 0 {
			continue // the new place
		}
		want := fmt.Sprintf("%02x", 0x10+page)
		if page >= w.from && page < w.from+w.old {
			switch {
			case k.grows && w.flags&unix.MREMAP_DONTUNMAP == 0:
				continue // looking at it would make what is above grow
			case w.flags&unix.MREMAP_DONTUNMAP == 0:
				want = "SIGSEGV/MAPERR"
			case !k.shared:
				want = k.beyond(page)
			}
		}
		assert.Equal(t, []string{want}, contents(kit.Me, a.Page(at), 1), "old page %d", page)
	}
}
