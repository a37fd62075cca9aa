package mm

import (
	"bytes"
	"fmt"
	"math/rand"
	"sync"
	"testing"

	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
	"gvisor.dev/gvisor/pkg/state"
)

const spareSize = 4 * pageSize

// used maps so many bytes at addr and writes to all of their pages.
func (m *testMM) used(addr hostarch.Addr, n uint64) memmap.FileRange {
	m.t.Helper()
	m.mustMap(n, hostarch.ReadWrite, fixedAt(addr))
	m.writeAll(addr, n)
	p, ar, _, ok := m.pmaAt(addr)
	if !ok {
		m.t.Fatalf("there are no pages at %v", addr)
	}
	return p.fileRange(uint64(ar.Start), rangeAt(addr, n))
}

func (m *testMM) writeAll(addr hostarch.Addr, n uint64) {
	m.t.Helper()
	for i := hostarch.Addr(0); i < hostarch.Addr(n); i += pageSize {
		if err := m.store(addr+i, []byte("old")); err != nil {
			m.t.Fatal(err)
		}
	}
}

// mustBeZero checks that an application reads zeroes from all pages.
func (m *testMM) mustBeZero(addr hostarch.Addr, n uint64) {
	m.t.Helper()
	for i := hostarch.Addr(0); i < hostarch.Addr(n); i += pageSize {
		if got, err := m.load(addr+i, pageSize); err != nil || string(got) != string(make([]byte, pageSize)) {
			m.t.Errorf("page %d of a new mapping is not zero: %.8q, %v", i/pageSize, got, err)
		}
	}
}

// spareRanges returns what m keeps.
func (m *testMM) spareRanges() string { return fmt.Sprint(m.spares.zeroed.ranges) }

func TestUnmappedPagesServeTheNextMapping(t *testing.T) {
	for name, give := range map[string]func(m *testMM){
		"munmap":  func(m *testMM) { m.mustUnmap(m.base, spareSize) },
		"replace": func(m *testMM) { m.mustMap(spareSize, hostarch.NoAccess, fixedAt(m.base)) },
		"brk":     nil,
	} {
		t.Run(name, func(t *testing.T) {
			m := newTestMM(t, onRealMemory)
			at, fr := m.base, memmap.FileRange{}
			if give == nil {
				m.BrkSetup(m.ctx, at)
				if _, err := m.Brk(m.ctx, at+spareSize); err != nil {
					t.Fatal(err)
				}
				m.mustFault(at, spareSize, hostarch.Write)
				m.writeAll(at, spareSize)
				p, ar, _, _ := m.pmaAt(at)
				fr = p.fileRange(uint64(ar.Start), rangeAt(at, spareSize))
				give = func(m *testMM) {
					if _, err := m.Brk(m.ctx, at); err != nil {
						t.Fatal(err)
					}
				}
			} else {
				fr = m.used(at, spareSize)
			}
			give(m)
			if len(m.spares.zeroed.ranges) != 1 || m.spares.zeroed.ranges[0].FileRange != fr || m.spares.zeroed.bytes != spareSize {
				t.Fatalf("spare are %v, %d bytes, want %v", m.spareRanges(), m.spares.zeroed.bytes, fr)
			}
			next := m.base + 1<<30
			m.mustMap(spareSize, hostarch.ReadWrite, fixedAt(next))
			if p, ar, _, _ := m.pmaAt(next); p.fileRange(uint64(ar.Start), rangeAt(next, spareSize)) != fr {
				t.Errorf("the next mapping has other pages")
			}
			if m.spares.zeroed.bytes != 0 || len(m.spares.zeroed.ranges) != 0 {
				t.Errorf("spare are still %v, %d bytes", m.spareRanges(), m.spares.zeroed.bytes)
			}
			m.mustBeZero(next, spareSize)
			m.check()
		})
	}
}

// Whether the host has committed pages is known of those that were kept before, and of others is asked. Pages of which it is known stay apart from others.
func TestSparePagesAreKnownToBeCommitted(t *testing.T) {
	m := newTestMM(t, onRealMemory)
	known := func(addr hostarch.Addr) bool {
		p, _, _, ok := m.pmaAt(addr)
		return ok && p.committed
	}
	m.used(m.base, spareSize)
	if known(m.base) {
		t.Error("of new pages it is known")
	}
	m.mustUnmap(m.base, spareSize)
	m.mustMap(spareSize, hostarch.ReadWrite, fixedAt(m.base))
	if !known(m.base) {
		t.Error("of spare pages it is not")
	}
	m.mustUnmap(m.base, spareSize)
	if m.spares.zeroed.bytes != spareSize {
		t.Errorf("%#x bytes are kept of what was spare before", m.spares.zeroed.bytes)
	}

	for _, next := range []bool{true, false} {
		l, r := &pma{file: m.mf, private: true, committed: true}, &pma{file: m.mf, private: true, off: pageSize, committed: next}
		both, ok := pmaPolicy{}.Merge(treeRange(rangeAt(0, pageSize)), l, treeRange(rangeAt(pageSize, pageSize)), r)
		if ok != next || ok && !both.committed {
			t.Errorf("next to pages of which it is known: %t; merged: %t", next, ok)
		}
	}
	m.check()
}

// Who is about to touch spare pages does not fault for each on the host, neither in a new mapping nor after a fault. New pages would have to be committed
// for that, and who changes permissions may not touch anything.
func TestSparePagesArePopulated(t *testing.T) {
	m := newTestMM(t, onRealMemory)
	populates := func(what string, want bool, do func()) {
		t.Helper()
		if h := m.callsOf(do); h.mapFile != 1 || h.precommitted != want {
			t.Errorf("%s: %d calls of MapFile, with precommit %t; want one with %t:\n%s", what, h.mapFile, h.precommitted, want, callString(h.calls))
		}
	}
	mapIt := func() { m.mustMap(spareSize, hostarch.ReadWrite, fixedAt(m.base)) }
	protect := func(at hostarch.AccessType) func() {
		return func() {
			if err := m.MProtect(m.base, spareSize, at, false); err != nil {
				t.Error(err)
			}
		}
	}
	populates("new pages", false, mapIt)
	m.writeAll(m.base, spareSize)
	m.mustUnmap(m.base, spareSize)
	populates("spare pages", true, mapIt)
	populates("mprotect", false, protect(hostarch.Read))
	populates("mprotect back", false, protect(hostarch.ReadWrite))
	m.activeMu.Lock()
	m.unmapHost(rangeAt(m.base, spareSize))
	m.activeMu.Unlock()
	populates("a fault", true, func() { m.mustFault(m.base, pageSize, hostarch.Write) })

	for _, n := range []uint64{spareMax, spareMax + pageSize} {
		var maps mapping
		ar := rangeAt(m.base, n)
		e := pmaEntry{Range: treeRange(ar), Value: &pma{file: m.mf, private: true, committed: true, effectivePerms: hostarch.ReadWrite}}
		if maps.addTouched(e, ar, false); maps.parts[0].commit != (n == spareMax) {
			t.Errorf("of %#x bytes: %t", n, maps.parts[0].commit)
		}
	}
}

// Nothing is kept that somebody else has, that costs nothing to have, or that is much.
func TestPagesThatAreNotKept(t *testing.T) {
	for name, c := range map[string]struct {
		size uint64
		use  func(m *testMM) (after func())
	}{
		"a forked child has them": {size: spareSize, use: func(m *testMM) func() {
			m.used(m.base, spareSize)
			child := m.fork()
			return func() {
				if got, err := child.load(m.base, 3); err != nil || string(got) != "old" {
					t.Errorf("the child reads %q, %v", got, err)
				}
			}
		}},
		"somebody pinned them": {size: spareSize, use: func(m *testMM) func() {
			m.used(m.base, spareSize)
			pinned, err := m.Pin(m.ctx, rangeAt(m.base, spareSize), hostarch.Write, false)
			if err != nil {
				t.Fatal(err)
			}
			return func() { Unpin(pinned) }
		}},
		"one was never touched": {size: spareSize, use: func(m *testMM) func() {
			m.mustMap(spareSize, hostarch.ReadWrite, fixedAt(m.base))
			m.writeAll(m.base, spareSize-pageSize)
			return nil
		}},
		"too much": {size: spareMax + pageSize, use: func(m *testMM) func() {
			m.used(m.base, spareMax+pageSize)
			return nil
		}},
	} {
		t.Run(name, func(t *testing.T) {
			m := newTestMM(t, onRealMemory)
			after := c.use(m)
			m.mustUnmap(m.base, c.size)
			if len(m.spares.zeroed.ranges) != 0 {
				t.Errorf("spare are %v", m.spareRanges())
			}
			if after != nil {
				after()
			}
			m.check()
		})
	}
	t.Run("MADV_DONTNEED", func(t *testing.T) {
		m := newTestMM(t, onRealMemory)
		m.used(m.base, spareSize)
		if err := m.Decommit(m.base, spareSize); err != nil {
			t.Fatal(err)
		}
		if len(m.spares.zeroed.ranges) != 0 {
			t.Errorf("spare are %v", m.spareRanges())
		}
	})
	t.Run("there is no room", func(t *testing.T) {
		m := newTestMM(t, onRealMemory)
		const n = spareMax / 2
		for i := range hostarch.Addr(3) {
			m.used(m.base+i*n*2, n)
		}
		m.mustUnmap(m.base, 3*n*2)
		if m.spares.zeroed.bytes != spareMax || len(m.spares.zeroed.ranges) != 2 {
			t.Errorf("spare are %v, %d bytes", m.spareRanges(), m.spares.zeroed.bytes)
		}
	})
	t.Run("somebody else was faster", func(t *testing.T) {
		var s spares
		if !s.put(spareRange{memmap.FileRange{End: spareMax}, 0}) || s.put(spareRange{memmap.FileRange{End: pageSize}, 0}) {
			t.Errorf("spare are %v", s.zeroed.ranges)
		}
		s.takeAll()
		s.close()
		if s.put(spareRange{memmap.FileRange{End: pageSize}, 0}) || s.hasRoom(pageSize) {
			t.Errorf("though closed, spare are %v", s.zeroed.ranges)
		}
	})
	t.Run("another memory cgroup wants some", func(t *testing.T) {
		var s spares
		fr := memmap.FileRange{End: spareSize}
		if !s.put(spareRange{fr, 1}) {
			t.Fatal("there is no room")
		}
		if _, ok := s.take(spareSize, 2); ok {
			t.Error("it got what is counted for another")
		}
		if got, ok := s.take(spareSize, 1); !ok || got != fr {
			t.Errorf("take = %v, %t, want %v", got, ok, fr)
		}
	})
}

// A checkpoint has none, and nobody gets any after the last user has left.
func TestSparePagesAreGivenBack(t *testing.T) {
	m := newTestMM(t, onRealMemory)
	m.used(m.base, spareSize)
	m.mustUnmap(m.base, spareSize)
	if _, err := state.Save(m.ctx, &bytes.Buffer{}, &m.MemoryManager); err == nil {
		t.Error("a checkpoint was taken that has them")
	}
	if err := m.InvalidateUnsavable(m.ctx); err != nil {
		t.Fatal(err)
	}
	if m.spares.zeroed.bytes != 0 || len(m.spares.zeroed.ranges) != 0 {
		t.Errorf("after InvalidateUnsavable, spare are %v, %d bytes", m.spareRanges(), m.spares.zeroed.bytes)
	}
	m.used(m.base, spareSize)
	m.mustUnmap(m.base, spareSize)
	m.used(m.base, spareSize)
	m.exit()
	if m.spares.zeroed.bytes != 0 || len(m.spares.zeroed.ranges) != 0 {
		t.Errorf("without users, spare are %v, %d bytes", m.spareRanges(), m.spares.zeroed.bytes)
	}
	// newTestMM's end finds pages that are left in the memory file.
}

func TestSparePagesRace(t *testing.T) {
	m := newTestMM(t, onRealMemory)
	m.raceForPages(400, func(rng *rand.Rand) uint64 { return uint64(1+rng.Intn(3)) * spareSize })
}

// raceForPages has threads map, write and unmap all the time: they find zeroes in what is new, and what they wrote in what
// is theirs.
func (m *testMM) raceForPages(rounds int, size func(*rand.Rand) uint64, mods ...mmapMod) {
	if testing.Short() {
		rounds /= 8
	}
	t := m.t
	m.as.lax = true
	seed := testSeed(t)
	var threads sync.WaitGroup
	for id := range 4 {
		threads.Go(func() {
			rng := rand.New(rand.NewSource(seed + int64(id)))
			at := m.base + hostarch.Addr(id)<<30
			for i := range rounds {
				n := size(rng)
				if _, err := m.mmap(n, hostarch.ReadWrite, append([]mmapMod{fixedAt(at)}, mods...)...); err != nil {
					t.Errorf("thread %d: %v", id, err)
					return
				}
				m.mustBeZero(at, n)
				mark := fmt.Sprintf("%d/%d", id, i)
				for p := hostarch.Addr(0); p < hostarch.Addr(n); p += pageSize {
					m.store(at+p, []byte(mark))
				}
				for p := hostarch.Addr(0); p < hostarch.Addr(n); p += pageSize {
					if got, err := m.load(at+p, len(mark)); err != nil || string(got) != mark {
						t.Errorf("thread %d reads %q, %v, want %q", id, got, err, mark)
						return
					}
				}
				if rng.Intn(2) == 0 {
					if err := m.MUnmap(m.ctx, at, n); err != nil {
						t.Errorf("thread %d: %v", id, err)
					}
				}
			}
		})
	}
	threads.Wait()
	m.check()
}
