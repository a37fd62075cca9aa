package mm

import (
	"testing"

	"gvisor.dev/gvisor/pkg/errors"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/limits"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
)

// Claims of this file: Brk and MRemap that are refused change nothing, in each mode;
// and MRemap whose CopyMapping fails has done what Linux has done by then, and no
// more: what was at the destination, and what shrinking cuts off, is unmapped.

func TestFailedBrkChangesNothing(t *testing.T) {
	const pages = 4 // of which the first is not the heap's
	for name, test := range map[string]struct {
		prepare func(m *testMM, heap hostarch.Addr)
		grow    uint64
		want    *errors.Error
	}{
		"RLIMIT_AS": {func(m *testMM, _ hostarch.Addr) { m.ctx.limit(limits.AS, (pages-1)*pageSize) }, pageSize, linuxerr.ENOMEM},
		"RLIMIT_DATA, the heap alone": {func(m *testMM, _ hostarch.Addr) {
			m.ctx.limit(limits.Data, pages*pageSize)
		}, pageSize, linuxerr.ENOMEM},
		"RLIMIT_DATA, with other data": {func(m *testMM, _ hostarch.Addr) {
			m.mustMap(8*pageSize, hostarch.ReadWrite)
			m.ctx.limit(limits.Data, (pages-1+8)*pageSize)
		}, pageSize, linuxerr.ENOMEM},
		"RLIMIT_MEMLOCK": {lockFuture, pageSize, linuxerr.EAGAIN},
		"a mapping in the way": {func(m *testMM, heap hostarch.Addr) {
			m.mustMap(pageSize, hostarch.Read, fixedAt(heap+(pages+1)*pageSize))
		}, 2 * pageSize, linuxerr.ENOMEM},
		"a stack's guard gap in the way": {func(m *testMM, heap hostarch.Addr) {
			m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(heap+(pages+2)*pageSize), growsDown)
		}, pageSize, linuxerr.ENOMEM},
		"beyond all addresses": {func(*testMM, hostarch.Addr) {}, 1 << 62, linuxerr.ENOMEM},
		"below the heap":       {func(*testMM, hostarch.Addr) {}, -(pages*pageSize + 1) & (1<<64 - 1), linuxerr.EINVAL},
	} {
		t.Run(name, func(t *testing.T) {
			m := newTestMM(t)
			heap := m.base + 0x800 // heaps do not begin at pages
			m.BrkSetup(m.ctx, heap)
			end, err := m.Brk(m.ctx, m.base+pages*pageSize)
			if err != nil {
				t.Fatal(err)
			}
			test.prepare(m, m.base)
			m.stamp()
			m.as.forget()
			before := m.captureAll()
			got, err := m.Brk(m.ctx, end+hostarch.Addr(test.grow))
			if got != end || !linuxerr.Equals(test.want, err) {
				t.Errorf("Brk returned %#x, %v; want %#x, %v", got, err, end, test.want)
			}
			m.mustBeAsBefore(before)
			if calls := m.as.history(); len(calls) != 0 {
				t.Errorf("the host was called:\n%s", callString(calls))
			}
		})
	}
}

func lockFuture(m *testMM, _ hostarch.Addr) {
	m.t.Helper()
	if err := m.MLockAll(m.ctx, MLockAllOpts{Future: true, Mode: memmap.MLockEager}); err != nil {
		m.t.Fatal(err)
	}
	m.ctx.limit(limits.MemoryLocked, 1)
}

// move is a scene for MRemap. The mapping at src, 8 pages, has its like on both
// sides; at dst, 8 pages of something else.
//
//	|--edge--|--src--|--edge--|     |--edge--|--dst--|--edge--|
type move struct {
	*scene
	src, dst hostarch.AddrRange
}

// moved are what may be moved, and overMoved what may be at the destination.
var moved = []newcomer{
	{name: "anonymous", at: hostarch.ReadWrite},
	{name: "shared", at: hostarch.ReadWrite, file: sharedFile},
	{name: "private", at: hostarch.AnyAccess, file: privateFile},
}

var overMoved = []newcomer{{name: "hole"}, moved[0], moved[1], moved[2]}

func newMove(t testing.TB, what, over newcomer) *move {
	s := newScene(t, 64*pageSize)
	m := &move{scene: s, src: rangeAt(s.base+edge, 8*pageSize), dst: rangeAt(s.base+edge+32*pageSize, 8*pageSize)}
	for _, place := range []struct {
		n  newcomer
		ar hostarch.AddrRange
	}{{what, m.src}, {over, m.dst}} {
		ar := hostarch.AddrRange{Start: place.ar.Start - edge, End: place.ar.End + edge}
		if place.n.name == "hole" {
			continue
		}
		s.put(ar, place.n.at, place.n.file)
		if place.n.name == "private" {
			s.dirty(hostarch.AddrRange{Start: ar.Start + 2*pageSize, End: ar.End})
		}
	}
	s.stamp()
	s.as.forget()
	return m
}

// remaps are the modes of MRemap that can be refused.
var remaps = []struct {
	name     string
	from, to uint64 // pages
	mode     MRemapMoveMode
}{
	{"move", 8, 8, MRemapMustMove},
	{"move and grow", 4, 8, MRemapMustMove},
	{"move and shrink", 8, 4, MRemapMustMove},
	{"grow, may move", 8, 12, MRemapMayMove},
	{"grow, not move", 12, 16, MRemapNoMove},
	{"copy", 0, 8, MRemapMustMove},
	{"copy, anywhere", 0, 8, MRemapMayMove},
}

func (m *move) remap(i int) error {
	_, err := m.MRemap(m.ctx, m.src.Start, remaps[i].from*pageSize, remaps[i].to*pageSize, MRemapOpts{Move: remaps[i].mode, NewAddr: m.dst.Start})
	return err
}

// eachMove runs test for all that can be moved over all, in each mode.
func eachMove(t *testing.T, test func(t *testing.T, mode int, what, over newcomer)) {
	for i, r := range remaps {
		for _, what := range moved {
			if r.from == 0 && what.name != "shared" {
				continue // copies are of shared memory
			}
			for _, over := range overMoved {
				if over.name != "hole" && r.mode != MRemapMustMove {
					continue
				}
				t.Run(r.name+", "+what.name+" over "+over.name, func(t *testing.T) { test(t, i, what, over) })
			}
		}
	}
}

func TestFailedRemapChangesNothing(t *testing.T) {
	eachMove(t, func(t *testing.T, mode int, what, over newcomer) {
		r := remaps[mode]
		grows := r.to > r.from
		for name, test := range map[string]struct {
			applies bool
			prepare func(m *move)
			want    *errors.Error
		}{
			// What is replaced is deducted, so there must be less than that.
			"RLIMIT_AS": {grows, func(m *move) { m.ctx.limit(limits.AS, pageSize) }, linuxerr.ENOMEM},
			"RLIMIT_DATA": {grows && what.name != "shared", func(m *move) {
				m.ctx.limit(limits.Data, pageSize)
			}, linuxerr.ENOMEM},
			"RLIMIT_MEMLOCK": {grows, func(m *move) {
				if err := m.MLock(m.ctx, m.src.Start-edge, 8*pageSize+2*edge, memmap.MLockLazy); err != nil {
					t.Fatal(err)
				}
				m.ctx.limit(limits.MemoryLocked, pageSize)
			}, linuxerr.EAGAIN},
			"destination outside": {r.mode == MRemapMustMove, func(m *move) {
				m.dst = rangeAt(m.layout.MaxAddr-pageSize, 8*pageSize)
			}, nil},
			"destination overlaps": {r.mode == MRemapMustMove && r.from != 0, func(m *move) {
				m.dst = rangeAt(m.src.Start-2*pageSize, 8*pageSize)
			}, linuxerr.EINVAL},
			"not one mapping": {r.from != 0 && r.from != r.to && r.mode == MRemapMustMove, func(m *move) {
				if err := m.MProtect(m.src.Start+2*pageSize, pageSize, hostarch.Read, false); err != nil {
					t.Fatal(err)
				}
			}, linuxerr.EFAULT},
			"no mapping": {true, func(m *move) { m.mustUnmap(m.src.Start, pageSize) }, linuxerr.EFAULT},
		} {
			if !test.applies {
				continue
			}
			t.Run(name, func(t *testing.T) {
				m := newMove(t, what, over)
				test.prepare(m)
				m.as.forget()
				before := m.captureAll()
				if err := m.remap(mode); err == nil || test.want != nil && !linuxerr.Equals(test.want, err) {
					t.Errorf("got %v, want %v", err, test.want)
				}
				m.mustBeAsBefore(before)
				if calls := m.as.history(); len(calls) != 0 {
					t.Errorf("the host was called:\n%s", callString(calls))
				}
			})
		}
	})
}

// Growing in place registers what is new. If that is refused and the mapping may
// not move, nothing has changed; if it may, it moves.
func TestRefusedGrowthInPlace(t *testing.T) {
	for _, file := range moved[1:] {
		for _, mode := range []MRemapMoveMode{MRemapNoMove, MRemapMayMove} {
			m := newMove(t, file, overMoved[0])
			start, n := m.src.Start-edge, uint64(m.src.Length()+2*edge)
			before := m.captureAll()
			m.f.fail("AddMapping", 1, linuxerr.ENODEV)
			addr, err := m.MRemap(m.ctx, start, n, n+edge, MRemapOpts{Move: mode})
			if mode == MRemapNoMove {
				if !linuxerr.Equals(linuxerr.ENODEV, err) {
					t.Errorf("got %v", err)
				}
				m.mustBeAsBefore(before)
			} else if err != nil || addr == start {
				t.Errorf("got %#x, %v", addr, err)
			}
			m.mustBeSettled()
			m.exit()
		}
	}
}

// Growth and then moving are both refused: nothing was replaced, so nothing is lost.
func TestRefusedGrowthAndMoveChangesNothing(t *testing.T) {
	for _, file := range moved[1:] {
		t.Run(file.name, func(t *testing.T) {
			m := newMove(t, file, overMoved[0])
			start, n := m.src.Start-edge, uint64(m.src.Length()+2*edge)
			before := m.captureAll()
			m.f.fail("AddMapping", 1, linuxerr.ENODEV)
			m.f.fail("CopyMapping", 1, linuxerr.ENFILE)
			if _, err := m.MRemap(m.ctx, start, n, n+edge, MRemapOpts{Move: MRemapMayMove}); !linuxerr.Equals(linuxerr.ENFILE, err) {
				t.Errorf("got %v", err)
			}
			m.mustBeAsBefore(before)
		})
	}
}

// The twin is the same scene with the same things unmapped by munmap.
func TestFailedCopyMappingLosesDestinationAndTailOnly(t *testing.T) {
	eachMove(t, func(t *testing.T, mode int, what, over newcomer) {
		r := remaps[mode]
		if what.file == nil || r.mode == MRemapNoMove {
			return
		}
		var want captured
		t.Run("twin", func(t *testing.T) {
			m := newMove(t, what, over)
			if r.mode == MRemapMustMove {
				m.mustUnmap(m.dst.Start, r.to*pageSize)
			}
			if r.from > r.to {
				m.mustUnmap(m.src.Start+hostarch.Addr(r.to*pageSize), (r.from-r.to)*pageSize)
			}
			want = m.captureAll()
		})
		t.Run("failed", func(t *testing.T) {
			m := newMove(t, what, over)
			m.f.fail("CopyMapping", 1, linuxerr.ENFILE)
			if err := m.remap(mode); !linuxerr.Equals(linuxerr.ENFILE, err) {
				t.Errorf("got %v", err)
			}
			m.mustBeAsBefore(want)
			// The source is still known to its file.
			m.f.set.invalidate(memmap.MappableRange{Start: uint64(m.src.Start - m.base), End: uint64(m.src.Start-m.base) + pageSize}, memmap.InvalidateOpts{InvalidatePrivate: true})
			if n := m.residentBytes(rangeAt(m.src.Start, pageSize)); n != 0 {
				t.Error("an invalidation did not arrive at the source")
			}
		})
	})
}
