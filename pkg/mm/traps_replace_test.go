// What a replacement does to the host and to memory: as little as possible, to the
// replaced range only, and nothing of the old is left.

package mm

import (
	"testing"

	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
)

// A small replacement that is populated at once is mapped over the old pages. What
// it does not cover has to be unmapped all the same.
//
//	old | anonymous, written to |
//	new | page 0 | page 1 | page 2 |   of a file; not all of it can be mapped
func TestMapOverPartialFailureLeavesNothingStale(t *testing.T) {
	const n = 3 * pageSize
	for name, c := range map[string]struct {
		size    uint64              // of the file
		perms   hostarch.AccessType // of its translations; anything if zero
		private bool
		fail    int // the call of MapFile from which on they fail
	}{
		"short translation":      {size: pageSize},
		"nothing to translate":   {size: 0},
		"private and short":      {size: 2 * pageSize, private: true},
		"no access":              {size: n, perms: hostarch.Execute},
		"MapFile fails midway":   {size: n, fail: 2},
		"MapFile fails at first": {size: n, fail: 1},
	} {
		t.Run(name, func(t *testing.T) {
			m := newTrapMM(t)
			f := newTestMappable(t, m.mf, c.size)
			f.perms = c.perms
			if c.size == n {
				// Three pages that are not neighbours take three calls.
				f.set.replace(memmap.MappableRange{Start: pageSize, End: 2 * pageSize})
			}
			addr := m.mustMap(n, hostarch.ReadWrite, fixedAt(m.base), populated)
			old, _ := m.as.at(addr)
			for i := hostarch.Addr(0); i < n; i += pageSize {
				m.mustStore(addr+i, "old")
			}
			if c.fail != 0 {
				m.as.on("MapFile", 0, nil, func(any) error {
					if c.fail--; c.fail <= 0 {
						return linuxerr.ENOMEM
					}
					return nil
				})
			}
			kind := sharedFile(f, 0)
			if c.private {
				kind = privateFile(f, 0)
			}
			m.mustMap(n, hostarch.Read, fixedAt(addr), kind, populated)
			for _, h := range m.as.mapped(rangeAt(addr, n)) {
				if h.file == old.file && h.off >= old.off && h.off < old.off+n {
					t.Errorf("the host still has an old page mapped at %v", h.AddrRange)
				}
			}
			for i := hostarch.Addr(0); i < n; i += pageSize {
				if got, ok := m.loadWithoutFault(addr+i, 3); ok && got == "old" {
					t.Errorf("a thread still reads %q at page %d", got, i/pageSize)
				}
			}
			m.check()
		})
	}
}

// A populated replacement of n bytes needs n bytes of memory and not twice that: the
// old pages go first. (Within one step they do not.)
func TestFixedPopulatePeakMemory(t *testing.T) {
	const n = 2 * manyPieces
	for name, how := range map[string]mmapMod{"MAP_POPULATE": populated, "committed": committedNow, "locked": locked(memmap.MLockEager)} {
		t.Run(name, func(t *testing.T) {
			m := newTestMM(t)
			m.ctx.allowIPCLock(true)
			addr := m.mustMap(n, hostarch.ReadWrite, fixedAt(m.base), how)
			if got := usedPages(m.mf); got != n {
				t.Fatalf("%#x bytes are in use to begin with", got)
			}
			peak := uint64(0)
			m.as.on("MapFile", 0, nil, func(any) error {
				peak = max(peak, usedPages(m.mf))
				return nil
			})
			m.mustMap(n, hostarch.ReadWrite, fixedAt(addr), how)
			if peak == 0 || peak > n+pieceSize {
				t.Errorf("%#x bytes are replaced by as many, and up to %#x were in use", n, peak)
			}
			m.check()
		})
	}
}

// What munmap costs depends on the pages there are, not on the length asked for.
func TestMunmapHugeLengthIsCheap(t *testing.T) {
	m := newTestMM(t)
	const huge = 1 << 46
	at := []hostarch.Addr{m.base, m.base + 5<<40, m.base + huge - pageSize}
	lay := func() {
		m.mustMap(1<<42, hostarch.NoAccess, fixedAt(m.base+1<<40)) // has no pages
		for _, a := range at {
			m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(a), populated)
		}
		m.as.forget()
	}
	all := uint64(m.layout.MaxAddr - m.base)
	for _, n := range []uint64{huge, all} {
		lay()
		m.mustUnmap(m.base, n)
		if calls := m.as.history(); len(calls) != 1 {
			t.Errorf("munmap of %#x bytes with 3 pages takes %d calls:\n%s", n, len(calls), callString(calls))
		}
		if m.vmas.Snapshot().Len() != 0 || m.as.mappedPages(everywhere) != 0 {
			t.Errorf("munmap of %#x bytes leaves\n%s", n, m.maps())
		}
		m.check()
	}

	// With more than a piece of pages, it takes as many calls as there are pieces.
	lay()
	for _, a := range at[:2] {
		m.mustMap(manyPieces, hostarch.ReadWrite, fixedAt(a), populated)
	}
	m.as.forget()
	m.mustUnmap(m.base, all)
	if calls := m.as.history(); len(calls) != 2*manyPieces/pieceSize+1 {
		t.Errorf("%d calls for %d pieces and a page:\n%s", len(calls), 2*manyPieces/pieceSize, callString(calls))
	}
	m.check()
}

// A host call with a length of 0 is an error of the host at best, and at worst means
// everything. The recording address space fails the test at one.
func TestNoEmptyHostCalls(t *testing.T) {
	m := newTestMM(t)
	f := newTestMappable(t, m.mf, 4*pageSize)
	none := func(what string, err error) {
		t.Helper()
		if err != nil && !linuxerr.Equals(linuxerr.ENOMEM, err) {
			t.Fatalf("%s: %v", what, err)
		}
		if calls := m.as.history(); len(calls) != 0 {
			t.Errorf("%s calls the host for nothing:\n%s", what, callString(calls))
		}
		m.check()
	}
	addr := m.base
	remap := func(n uint64, to hostarch.Addr) error {
		_, err := m.MRemap(m.ctx, addr, 4*pageSize, n, MRemapOpts{Move: MRemapMustMove, NewAddr: to})
		return err
	}
	lay := func() { m.mustMap(4*pageSize, hostarch.ReadWrite, fixedAt(addr), sharedFile(f, 0)) }

	none("munmap of a hole", m.MUnmap(m.ctx, addr, 1<<40))
	lay()
	none("mmap without populating", nil)
	none("mprotect without pages", m.MProtect(addr, 4*pageSize, hostarch.Read, false))
	none("MADV_DONTNEED without pages", m.Decommit(addr, 4*pageSize))
	none("MADV_DONTNEED of a hole", m.Decommit(addr+1<<30, 4*pageSize))
	m.Invalidate(rangeAt(addr, 4*pageSize), memmap.InvalidateOpts{InvalidatePrivate: true})
	none("invalidation without pages", nil)
	child := m.fork()
	none("fork without pages", nil)
	child.exit()
	none("mremap without pages", remap(2*pageSize, addr+1<<30))
	addr += 1 << 30
	none("munmap without pages", m.MUnmap(m.ctx, addr, 2*pageSize))
	lay()
	none("replacing without pages", func() error { lay(); return nil }())
	none("exit", nil)

	// Where a piece ends with the pages, there is no other one behind it.
	for _, n := range []uint64{pieceSize, 2 * pieceSize, pieceSize + pageSize, manyPieces} {
		m.mustMap(n, hostarch.ReadWrite, fixedAt(m.base), populated)
		m.as.forget()
		m.mustUnmap(m.base, n)
		if calls, want := len(m.as.history()), int((n+pieceSize-1)/pieceSize); calls != want {
			t.Errorf("munmap of %#x bytes takes %d calls; want %d", n, calls, want)
		}
		m.check()
	}
}

// The new vma merges with its neighbours, but it is not them that were replaced.
//
//	old |---A---|xxxxxxx|---A---|
//	new         |---A---|
//	now |-----------A-----------|
func TestExpandingNeighbourUnmapsOnlyReplaced(t *testing.T) {
	for name, c := range map[string]struct {
		n   uint64
		how []mmapMod
	}{
		"small":         {n: pageSize},
		"in pieces":     {n: manyPieces},
		"must populate": {n: manyPieces, how: []mmapMod{populated, required}},
	} {
		t.Run(name, func(t *testing.T) {
			m := newTrapMM(t)
			f := newTestMappable(t, m.mf, c.n)
			left, mid := m.base, m.base+pageSize
			right := mid + hostarch.Addr(c.n)
			for _, a := range []hostarch.Addr{left, right} {
				m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(a), populated)
				m.mustStore(a, "kept")
			}
			m.mustMap(c.n, hostarch.ReadWrite, fixedAt(mid), sharedFile(f, 0), populated)
			m.as.forget()
			m.mustMap(c.n, hostarch.ReadWrite, append(c.how, fixedAt(mid))...)
			for _, call := range m.as.history() {
				if call.op == "Unmap" && (call.ar.Overlaps(rangeAt(left, pageSize)) || call.ar.Overlaps(rangeAt(right, pageSize))) {
					t.Errorf("%v reaches into a neighbour of %v", call, rangeAt(mid, c.n))
				}
			}
			if _, ar, _ := m.vmaAt(mid); ar.Start != left || ar.End != right+pageSize {
				t.Errorf("the new vma did not merge: it is %v", ar)
			}
			for _, a := range []hostarch.Addr{left, right} {
				if got, ok := m.loadWithoutFault(a, 4); !ok || got != "kept" {
					t.Errorf("at %#x is %q (mapped: %t)", a, got, ok)
				}
			}
			m.mustLoad(mid, zeroes(4))
			m.check()
		})
	}
}
