package mm

import (
	"bytes"
	"math/rand"
	"slices"
	"sync"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
	"gvisor.dev/gvisor/pkg/state"
)

// recycleTest returns a MemoryManager whose kept pages expire when the test says so.
func recycleTest(t *testing.T) *testMM {
	afterFunc = func(time.Duration, func()) *time.Timer { return time.AfterFunc(time.Hour, func() {}) }
	t.Cleanup(func() { afterFunc = time.AfterFunc })
	return newTestMM(t, onRealMemory)
}

// populated maps n bytes at addr, populates them, writes to them, and returns their pages.
func (m *testMM) populated(addr hostarch.Addr, n uint64) []memmap.FileRange {
	m.t.Helper()
	m.mustMap(n, hostarch.ReadWrite, fixedAt(addr), committedNow)
	m.mustBeZero(addr, n)
	m.writeAll(addr, n)
	return m.pagesAt(rangeAt(addr, n))
}

// pagesAt returns the pages that ar has.
func (m *testMM) pagesAt(ar hostarch.AddrRange) []memmap.FileRange {
	var frs []memmap.FileRange
	for r, p := range m.pmas.Within(treeRange(ar)) {
		frs = append(frs, p.fileRange(r.Start, addrRange(r).Intersect(ar)))
	}
	return frs
}

func (m *testMM) mustKeep(want uint64) {
	m.t.Helper()
	var sum uint64
	for _, r := range m.spares.recycled.ranges {
		sum += r.Length()
	}
	if m.spares.recycled.bytes != want || sum != want {
		m.t.Errorf("%#x bytes are kept, in %v, want %#x", m.spares.recycled.bytes, m.spares.recycled.ranges, want)
	}
}

// recycleSize is no multiple of what a step populates, and recycleAt begins in the middle of one.
const (
	recycleSize = 3*populateSize + 3*pageSize
	recycleSkew = 5 * pageSize
)

func TestPopulatedPagesAreRecycled(t *testing.T) {
	m := recycleTest(t)
	at := m.base + recycleSkew
	frs := m.populated(at, recycleSize)
	m.mustUnmap(at, recycleSize)
	m.mustKeep(recycleSize)

	// Faults get new pages, whatever the size.
	m.mustMap(recycleSize, hostarch.ReadWrite, fixedAt(at))
	m.mustBeZero(at, recycleSize)
	m.mustKeep(recycleSize)

	next := m.base + 1<<30 + recycleSkew
	m.mustMap(recycleSize, hostarch.ReadWrite, fixedAt(next), committedNow)
	m.mustKeep(0)
	m.mustBeZero(next, recycleSize)
	if got := m.pagesAt(rangeAt(next, recycleSize)); !slices.Equal(got, frs) {
		t.Errorf("there are the pages %v, want those that were unmapped, %v", got, frs)
	}
	m.check()

	// And what replaces it gets them at once, so that no more memory is needed.
	before, err := m.mf.TotalUsage()
	if err != nil {
		t.Fatal(err)
	}
	m.writeAll(next, recycleSize)
	m.mustMap(recycleSize, hostarch.ReadWrite, fixedAt(next), committedNow)
	m.mustKeep(0)
	m.mustBeZero(next, recycleSize)
	if after, err := m.mf.TotalUsage(); err != nil || after > before {
		t.Errorf("the memory file has %#x bytes, %v; before the replacement it had %#x", after, err, before)
	}
	m.check()
}

func TestPagesThatAreNotRecycled(t *testing.T) {
	t.Run("nothing was populated", func(t *testing.T) {
		m := recycleTest(t)
		m.used(m.base, recycleSize)
		m.mustUnmap(m.base, recycleSize)
		m.mustKeep(0)
	})
	t.Run("less was populated", func(t *testing.T) {
		m := recycleTest(t)
		m.populated(m.base, 2*populateSize)
		next := m.base + 1<<30
		m.used(next, 3*populateSize)
		m.mustUnmap(next, 3*populateSize)
		m.mustKeep(2 * populateSize)
		m.mustUnmap(m.base, 2*populateSize)
		m.mustKeep(2 * populateSize)
	})
	t.Run("too much", func(t *testing.T) {
		m := newTestMM(t)
		for i := range hostarch.Addr(3) {
			m.mustMap(recycleMax/2, hostarch.ReadWrite, fixedAt(m.base+i<<30), committedNow)
		}
		for i := range hostarch.Addr(3) {
			m.mustUnmap(m.base+i<<30, recycleMax/2)
		}
		m.mustKeep(recycleMax)
	})
	t.Run("a forked child has them", func(t *testing.T) {
		m := recycleTest(t)
		m.populated(m.base, recycleSize)
		child := m.fork()
		m.mustUnmap(m.base, recycleSize)
		m.mustKeep(0)
		if got, err := child.load(m.base, 3); err != nil || string(got) != "old" {
			t.Errorf("the child reads %q, %v", got, err)
		}
	})
	t.Run("somebody pinned one", func(t *testing.T) {
		m := recycleTest(t)
		m.populated(m.base, recycleSize)
		pinned, err := m.Pin(m.ctx, rangeAt(m.base+populateSize, pageSize), hostarch.Write, false)
		if err != nil {
			t.Fatal(err)
		}
		m.mustUnmap(m.base, recycleSize)
		m.mustKeep(0)
		Unpin(pinned)
	})
	t.Run("MADV_DONTNEED", func(t *testing.T) {
		m := recycleTest(t)
		m.populated(m.base, recycleSize)
		if err := m.Decommit(m.base, recycleSize); err != nil {
			t.Fatal(err)
		}
		m.mustKeep(0)
	})
	t.Run("they could not be zeroed", func(t *testing.T) {
		m := recycleTest(t)
		m.populated(m.base, recycleSize)
		m.mustUnmap(m.base, recycleSize)
		m.ctx.killed.Store(true)
		m.mustMap(recycleSize, hostarch.ReadWrite, fixedAt(m.base), committedNow)
		m.ctx.killed.Store(false)
		m.mustBeZero(m.base, recycleSize)
		m.check()
		m.exit() // says what is left in the memory file
	})
}

// What nobody wants for a whole period is given back, and after that nothing is kept.
func TestRecycledPagesExpire(t *testing.T) {
	m := recycleTest(t)
	m.populated(m.base, recycleSize)
	m.mustUnmap(m.base, recycleSize)
	m.expireRecycled()
	m.mustKeep(recycleSize)
	m.populated(m.base, recycleSize)
	m.mustUnmap(m.base, recycleSize)
	m.expireRecycled()
	m.mustKeep(recycleSize)
	m.expireRecycled()
	m.mustKeep(0)
	m.used(m.base, recycleSize)
	m.mustUnmap(m.base, recycleSize)
	m.mustKeep(0)
	if m.spares.recycled.timer != nil {
		t.Error("there is still a timer")
	}
	m.mustMap(recycleSize, hostarch.ReadWrite, fixedAt(m.base), committedNow)
	if m.spares.recycled.timer == nil {
		t.Error("after something was populated again there is no timer")
	}
	m.exit() // says what is left in the memory file
}

// Pages go back to where they were among others, so that they are mapped as one again.
func TestRecycledPagesStayNeighbours(t *testing.T) {
	m := recycleTest(t)
	const n = 4 * populateSize
	frs := m.populated(m.base, n)
	if len(frs) != 1 {
		t.Fatalf("the first pages of a file are %v", frs)
	}
	for _, i := range []hostarch.Addr{2, 0, 3, 1} {
		m.mustUnmap(m.base+i*populateSize, populateSize)
	}
	m.mustKeep(n)
	if got := m.populated(m.base, n); !slices.Equal(got, frs) {
		t.Errorf("they are %v, and were %v", got, frs)
	}
}

// What a populated mapping gets lies in one piece, whoever else gets pages meanwhile, and what it does not need is given back.
func TestPopulatedPagesAreNeighbours(t *testing.T) {
	const n = 4*populateSize + 3*pageSize
	m := recycleTest(t)
	elsewhere := m.mustMap(1<<30, hostarch.ReadWrite, fixedAt(m.base+1<<30))
	times := hostarch.Addr(0)
	testHookCommitted = func() {
		m.mustFault(elsewhere+times*pieceSize, pageSize, hostarch.Write)
		times++
	}
	defer func() { testHookCommitted = nil }()
	m.mustMap(n, hostarch.ReadWrite, fixedAt(m.base+recycleSkew), committedNow)
	if times < 4 {
		t.Fatalf("there were faults in %d steps, want some more", times)
	}
	if got := m.pagesAt(rangeAt(m.base+recycleSkew, n)); len(got) != 1 {
		t.Errorf("the pages lie in %d pieces, %v, want one", len(got), got)
	}
	m.mustBeZero(m.base+recycleSkew, n)
	m.check()
}

// Part of a hole may be filled, or all of it gone, by the time that populating gets there.
func TestReservesAreGivenBack(t *testing.T) {
	const n = 8 * populateSize
	for _, c := range []struct {
		name string
		do   func(m *testMM, addr hostarch.Addr)
	}{
		{"somebody writes to the next pages", func(m *testMM, addr hostarch.Addr) { m.writeAll(addr, n/2) }},
		{"somebody unmaps what is left", func(m *testMM, addr hostarch.Addr) { m.mustUnmap(addr+n/4, 3*n/4) }},
		{"somebody puts a file there", func(m *testMM, addr hostarch.Addr) {
			m.mustMap(n/4, hostarch.Read, fixedAt(addr+n/4), privateFile(newTestMappable(m.t, m.mf, n), 0))
		}},
		{"the task is killed", func(m *testMM, addr hostarch.Addr) { m.ctx.killed.Store(true) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := recycleTest(t)
			steps := 0
			testHookCommitted = func() {
				if steps++; steps == 2 {
					c.do(m, m.base)
				}
			}
			defer func() { testHookCommitted = nil }()
			m.mustMap(n, hostarch.ReadWrite, fixedAt(m.base), committedNow)
			m.ctx.killed.Store(false)
			testHookCommitted = nil
			m.check()
			m.mustUnmap(m.base, n)
			m.exit() // says what is left in the memory file
		})
	}
}

// A hole may have grown since there was a reserve for it.
func TestReservesOfHolesThatGrow(t *testing.T) {
	const n, kept = 4 * populateSize, 2*populateSize + pageSize
	m := recycleTest(t)
	addr := m.mustMap(n, hostarch.ReadWrite, fixedAt(m.base))
	giveUp := func(from, to hostarch.Addr) {
		if err := m.Decommit(addr+from, uint64(to-from)); err != nil {
			t.Error(err)
		}
	}
	m.writeAll(addr+kept, pageSize)
	giveUp(0, kept)
	giveUp(kept+pageSize, n)
	testHookCommitted = func() { giveUp(kept, kept+pageSize) }
	defer func() { testHookCommitted = nil }()
	if err := m.populate(m.ctx, rangeAt(addr, n), population{effect: memmap.PlatformEffectCommit}); err != nil {
		t.Error(err)
	}
	m.mustBeZero(addr, n)
	m.check()
	m.mustUnmap(addr, n)
	m.exit() // says what is left in the memory file
}

// A checkpoint has none, and nobody gets any after the last user has left.
func TestRecycledPagesAreGivenBack(t *testing.T) {
	m := recycleTest(t)
	m.populated(m.base, recycleSize)
	m.mustUnmap(m.base, recycleSize)
	if _, err := state.Save(m.ctx, &bytes.Buffer{}, &m.MemoryManager); err == nil {
		t.Error("a checkpoint was taken that has them")
	}
	if err := m.InvalidateUnsavable(m.ctx); err != nil {
		t.Fatal(err)
	}
	m.mustKeep(0)
	m.expireRecycled()
	m.expireRecycled()
	m.populated(m.base, recycleSize)
	m.mustUnmap(m.base, recycleSize)
	m.populated(m.base, recycleSize)
	m.populated(m.base+1<<30, recycleSize)
	m.mustUnmap(m.base, recycleSize)
	m.exit()
	m.mustKeep(0)
	m.expireRecycled() // was already on its way
	m.takeRecycled(populateSize, 0)
	if m.spares.recycled.timer != nil {
		t.Error("without users there is still a timer")
	}
	// newTestMM's end finds pages that are left in the memory file.
}

// Meanwhile pages expire.
func TestRecycledPagesRace(t *testing.T) {
	m := recycleTest(t)
	stop := make(chan struct{})
	var expiry sync.WaitGroup
	expiry.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				m.expireRecycled()
				time.Sleep(time.Millisecond)
			}
		}
	})
	m.raceForPages(60, func(rng *rand.Rand) uint64 { return uint64(1+rng.Intn(4)) * populateSize / 2 }, committedNow)
	close(stop)
	expiry.Wait()
}
