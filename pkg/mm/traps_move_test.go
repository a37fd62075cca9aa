// More of the traps, where several mappings move at once: what holds for one must hold
// for those after it. And what is next to the steps of an operation.

package mm

import (
	"testing"

	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
)

// As TestInvalidateDuringMremap, "while the host unmaps the source", for each of two
// mappings: none of the pages may be given up before the host is done with all of them.
//
//	src |--f--|--g--|  what the host has mapped, in part
//	dst |  f  |  g  |  the pages, and what an invalidation names
func TestInvalidateOfEachDestinationWaitsForTheHost(t *testing.T) {
	for name, second := range map[string]bool{"first": false, "second": true} {
		t.Run(name, func(t *testing.T) {
			const each = manyPieces / 2
			m := newTrapMM(t)
			src, dst := rangeAt(m.base, manyPieces), m.base+1<<30
			for _, a := range []hostarch.Addr{src.Start, src.Start + each} {
				f := newTestMappable(t, m.mf, each)
				m.mustMap(each, hostarch.ReadWrite, fixedAt(a), privateFile(f, 0))
				for i := hostarch.Addr(0); i < each; i += pieceSize {
					m.mustStore(a+i, "old")
				}
			}
			ar := rangeAt(dst, each)
			if second {
				ar = rangeAt(dst+each, each)
			}
			// A page in between, so that no hole includes the source.
			m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(src.End+1<<20), populated)
			i := m.betweenPieces(src,
				func() error { return m.move(src, dst) },
				func() error {
					m.Invalidate(ar, memmap.InvalidateOpts{InvalidatePrivate: true})
					return m.mustHaveNothing(rangeAt(src.Start+(ar.Start-dst), each))
				})
			i.other.mustBlock()
			i.finish()
			m.check()
			for a := dst; a < dst+manyPieces; a += pieceSize {
				want := "old"
				if ar.Contains(a) {
					want = zeroes(3)
				}
				m.mustLoad(a, want)
			}
		})
	}
}

// As TestStepsNextToPendingPiecesStaySmall, above and below.
//
//	|p|-- being unmapped --|    p: given up meanwhile
//	  |-- being unmapped --|p|
func TestStepsAboveAndBelowPendingPiecesStaySmall(t *testing.T) {
	for name, above := range map[string]bool{"above": true, "below": false} {
		t.Run(name, func(t *testing.T) {
			m := newTrapMM(t)
			big := rangeAt(m.base+pieceSize, manyPieces)
			page := big.Start - pageSize
			if above {
				page = big.End
			}
			m.mustMap(manyPieces, hostarch.ReadWrite, fixedAt(big.Start), populated)
			m.mustMap(pageSize, hostarch.Read, fixedAt(page), populated)
			first := m.as.pauseIf("Unmap", 1, func(arg any) bool {
				ar := arg.(asCall).ar
				return ar.Overlaps(big) && !ar.Contains(page)
			})
			unmap := spawn(t, "munmap", func() error { return m.MUnmap(m.ctx, big.Start, manyPieces) })
			first.wait()
			m.as.forget()
			spawn(t, "MADV_DONTNEED", func() error { return m.Decommit(page, pageSize) }).mustSucceed()
			pending := hostarch.AddrRange{Start: big.Start + pieceSize, End: big.End}
			for _, c := range m.as.history() {
				if c.ar.Contains(page) && c.ar.Overlaps(pending) {
					t.Errorf("the step for %#x went over pieces that were yet to come: %v", page, c.ar)
				}
			}
			first.resume()
			unmap.mustSucceed()
			m.check()
		})
	}
}

// Of several mappings that are moved, each is one call, if it is small.
func TestMovingSeveralSmallMappingsIsACallEach(t *testing.T) {
	m := newTestMM(t)
	src := rangeAt(m.base, 3*pageSize)
	for _, a := range []hostarch.Addr{src.Start, src.End - pageSize} {
		m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(a), populated)
	}
	m.callsOf(func() {
		if _, err := m.MRemap(m.ctx, src.Start, 3*pageSize, 3*pageSize, MRemapOpts{Move: MRemapMustMove, NewAddr: m.base + 1<<30}); err != nil {
			t.Fatal(err)
		}
	}).mustBe(t, 0, 2)
}

// When the host is told of a small move, it has happened, whatever was at the destination, and nobody waits for more.
func TestSmallMoveHappensAtOnce(t *testing.T) {
	m := newTestMM(t)
	src, dst := rangeAt(m.base, 4*pageSize), rangeAt(m.base+1<<30, 4*pageSize)
	m.mustMap(4*pageSize, hostarch.ReadWrite, fixedAt(src.Start), populated)
	m.mustMap(2*pageSize, hostarch.ReadWrite, fixedAt(dst.Start+pageSize), populated)
	m.as.on("Unmap", 0, nil, func(arg any) error {
		if f := m.frozen; f != nil {
			t.Errorf("%v while %d ranges are frozen", arg, len(f.ranges))
		}
		if _, ok := m.vmas.Snapshot().Find(uint64(src.Start)); ok {
			t.Errorf("%v before the move is published", arg)
		}
		return nil
	})
	if _, err := m.MRemap(m.ctx, src.Start, 4*pageSize, 4*pageSize, MRemapOpts{Move: MRemapMustMove, NewAddr: dst.Start}); err != nil {
		t.Fatal(err)
	}
	if n := m.residentBytes(dst); n != 4*pageSize {
		t.Errorf("%#x bytes are at the destination", n)
	}
	m.check()
}

// Several mappings, each of which would be moved at once, are too much together.
func TestMovingManySmallMappingsGoesInSteps(t *testing.T) {
	m := newTestMM(t)
	src := rangeAt(m.base, 3*pieceSize)
	for i, perms := range []hostarch.AccessType{hostarch.ReadWrite, hostarch.Read, hostarch.ReadWrite} {
		m.mustMap(pieceSize, perms, fixedAt(src.Start+hostarch.Addr(i)*pieceSize), committedNow)
	}
	h := m.callsOf(func() {
		if _, err := m.MRemap(m.ctx, src.Start, 3*pieceSize, 3*pieceSize, MRemapOpts{Move: MRemapMustMove, NewAddr: m.base + 1<<30}); err != nil {
			t.Fatal(err)
		}
	})
	if len(h.calls) != 3 {
		t.Errorf("the host was called %d times, want once a piece:\n%s", len(h.calls), callString(h.calls))
	}
	if n := m.residentBytes(rangeAt(m.base+1<<30, 3*pieceSize)); n != 3*pieceSize {
		t.Errorf("%#x bytes are at the destination", n)
	}
	m.check()
}

// A mapping that stays registered under its pending space does so after a restore, and is
// an old one there too: see TestReplacedKeptPendingSparesNewPages.
func TestRestoredKeptPendingSparesNewPages(t *testing.T) {
	s := keptPending(t, privateFile)
	m := &scene{testMM: s.saveAndRestore(), ar: s.ar, all: s.all}
	m.f = replacementOf(m.w, m.w.maps, s.f)
	p := m.f.pauseAt("RemoveMapping", 1)
	replace := spawn(t, "replacement", func() error {
		_, err := m.mmap(uint64(m.ar.Length()), hostarch.ReadWrite, fixedAt(m.ar.Start), populated)
		return err
	})
	p.wait()
	if n := m.residentBytes(m.ar); n != uint64(m.ar.Length()) {
		t.Fatalf("the replacement has %#x bytes", n)
	}
	m.f.set.truncate(0)
	if n := m.residentBytes(m.ar); n != uint64(m.ar.Length()) {
		t.Errorf("%#x bytes are left of the new mapping", n)
	}
	p.resume()
	replace.mustSucceed()
	m.check()
}
