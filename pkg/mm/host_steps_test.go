package mm

import (
	"testing"

	"gvisor.dev/gvisor/pkg/hostarch"
)

// Claims: what the host has to unmap for several ranges at once goes in steps of
// bounded size, and in no more of them than needed.

// Sources are unmapped together, in as few steps as if they were one.
//
//	|--f-- several pieces --|--g-- several pieces --|
func TestMovingSeveralMappingsGoesInSteps(t *testing.T) {
	m := newTestMM(t)
	m.as.lax = true
	const each = 3 * pieceSize
	for i := range 2 {
		f := newTestMappable(t, m.mf, each)
		m.mustMap(each, hostarch.ReadWrite, fixedAt(m.base+hostarch.Addr(i)*each), sharedFile(f, 0), populated)
	}
	h := m.callsOf(func() {
		if _, err := m.MRemap(m.ctx, m.base, 2*each, 2*each, MRemapOpts{Move: MRemapMustMove, NewAddr: m.base + 1<<30}); err != nil {
			t.Fatal(err)
		}
	})
	if h.mostUnmapped > pieceSize {
		t.Errorf("one Unmap removed %#x bytes:\n%s", h.mostUnmapped, callString(h.calls))
	}
	if n := len(h.calls); n != 2*each/pieceSize {
		t.Errorf("the host was called %d times:\n%s", n, callString(h.calls))
	}
	if n := m.as.mappedPages(rangeAt(m.base, 2*each)); n != 0 {
		t.Errorf("%d pages are left at the source", n)
	}
	m.check()
}

// While an operation unmaps piece by piece, what it has not got to is no hole that a
// step of somebody else's could be extended over.
//
//	|-- being unmapped --|p|    p: given up meanwhile
func TestStepsNextToPendingPiecesStaySmall(t *testing.T) {
	m := newTrapMM(t)
	big := rangeAt(m.base+pieceSize, manyPieces)
	m.mustMap(manyPieces, hostarch.ReadWrite, fixedAt(big.Start), populated)
	m.mustMap(pageSize, hostarch.Read, fixedAt(big.End), populated)
	h := m.callsOf(func() {
		m.passDuring(big,
			func() error { return m.MUnmap(m.ctx, big.Start, manyPieces) },
			func() error { return m.Decommit(big.End, pageSize) })
	})
	if h.mostUnmapped > pieceSize {
		t.Errorf("one Unmap removed %#x bytes:\n%s", h.mostUnmapped, callString(h.calls))
	}
	m.check()
}

// What lies between pages that mprotect takes permissions from is unmapped with them, so it counts.
//
//	|w|-- read-only, many pieces --|w|
func TestProtectingAroundMuchStaysSmall(t *testing.T) {
	m := newTestMM(t)
	m.mustMap(manyPieces+2*pageSize, hostarch.ReadWrite, fixedAt(m.base), populated)
	m.mustMap(manyPieces, hostarch.Read, fixedAt(m.base+pageSize), populated)
	h := m.callsOf(func() {
		if err := m.MProtect(m.base, manyPieces+2*pageSize, hostarch.Read, false); err != nil {
			t.Fatal(err)
		}
	})
	if h.mostUnmapped > pieceSize || len(h.calls) != 2 {
		t.Errorf("the host was called %d times, and one Unmap removed %#x bytes:\n%s", len(h.calls), h.mostUnmapped, callString(h.calls))
	}
	m.check()
}

// The same if it is a little less than a piece each time.
//
//	|w|-- read-only --|w|-- read-only --|w| ...
func TestProtectingAroundLittleStaysSmall(t *testing.T) {
	m := newTestMM(t)
	const times = 4
	m.mustMap(times*pieceSize, hostarch.ReadWrite, fixedAt(m.base), populated)
	for i := range hostarch.Addr(times) {
		m.mustMap(pieceSize-pageSize, hostarch.Read, fixedAt(m.base+i*pieceSize+pageSize), populated)
	}
	h := m.callsOf(func() {
		if err := m.MProtect(m.base, times*pieceSize, hostarch.Read, false); err != nil {
			t.Fatal(err)
		}
	})
	if h.mostUnmapped > pieceSize || len(h.calls) > times {
		t.Errorf("the host was called %d times, and one Unmap removed %#x bytes:\n%s", len(h.calls), h.mostUnmapped, callString(h.calls))
	}
	m.check()
}

// Where there are no pages costs nothing, whatever came before.
//
//	|w|r|w|-- no pages, many pieces --|w|
func TestProtectingOverHolesIsOneCallPerPiece(t *testing.T) {
	m := newTestMM(t)
	m.mustMap(manyPieces, hostarch.ReadWrite, fixedAt(m.base))
	m.mustMap(3*pageSize, hostarch.ReadWrite, fixedAt(m.base), populated)
	m.mustMap(pageSize, hostarch.Read, fixedAt(m.base+pageSize), populated)
	last := m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(m.base+manyPieces-pageSize), populated)
	pieces := m.pmas.Covered(treeRange(rangeAt(m.base, manyPieces))) / pieceSize
	h := m.callsOf(func() {
		if err := m.MProtect(m.base, manyPieces, hostarch.Read, false); err != nil {
			t.Fatal(err)
		}
	})
	if len(h.calls) != int(pieces) || m.as.mappedPages(rangeAt(last, pageSize)) != 0 {
		t.Errorf("%d pieces took these calls:\n%s", pieces, callString(h.calls))
	}
	m.check()
}
