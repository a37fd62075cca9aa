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

// Steps need not have the sizes that those had which populated the pages first.
func TestRecycledPagesAreTakenInParts(t *testing.T) {
	m := recycleTest(t)
	const n = 4 * populateSize
	frs := m.populated(m.base, n)
	m.mustUnmap(m.base, n)
	if r := m.spares.recycled.ranges; len(r) != 1 {
		t.Errorf("neighbours are kept as %v, want one range", r)
	}
	const skew = populateSize / 4
	half := m.populated(m.base+1<<30+skew, n/2)
	m.mustKeep(n / 2)
	if len(half) != 1 || half[0].Start != frs[0].Start {
		t.Errorf("the pages of one half are %v, want the start of %v", half, frs)
	}
	// There is less than is wanted: the rest is new.
	steps := 0
	testHookCommitted = func() { steps++ }
	defer func() { testHookCommitted = nil }()
	most := m.populated(m.base+2<<30+skew, n)
	m.mustKeep(0)
	if want := 6; steps != want {
		t.Errorf("it was populated in %d steps, want %d: one more than its pieces, for what the third one lacked", steps, want)
	}
	if most[0].Start != half[0].End {
		t.Errorf("the pages are %v, want first what is left of %v after %v", most, frs, half)
	}
	m.check()
}

func TestRecycledRanges(t *testing.T) {
	const p = pageSize
	r := recycled{limit: 10 * p}
	put := func(start, end uint64, cgID uint32) memmap.FileRange {
		return r.put(spareRange{memmap.FileRange{Start: start * p, End: end * p}, cgID})
	}
	put(2, 4, 1)
	put(8, 9, 1)
	put(4, 5, 2) // another cgroup's
	put(5, 8, 1) // joins the one behind
	put(1, 2, 1) // joins the one behind, not the one before, which is not there
	mustHave := func(want ...spareRange) {
		t.Helper()
		var sum uint64
		for _, w := range want {
			sum += w.Length()
		}
		if !slices.Equal(r.ranges, want) || r.bytes != sum {
			t.Errorf("there are %#x bytes in %v, want %#x in %v", r.bytes, r.ranges, sum, want)
		}
	}
	of := func(start, end uint64, cgID uint32) spareRange {
		return spareRange{memmap.FileRange{Start: start * p, End: end * p}, cgID}
	}
	put(0, 1, 2) // behind it is another cgroup's
	mustHave(of(0, 1, 2), of(1, 4, 1), of(4, 5, 2), of(5, 9, 1))
	if rest, want := put(20, 25, 1), (memmap.FileRange{Start: 21 * p, End: 25 * p}); rest != want {
		t.Errorf("with room for one page of five, %v is left, want %v", rest, want)
	}
	mustHave(of(0, 1, 2), of(1, 4, 1), of(4, 5, 2), of(5, 9, 1), of(20, 21, 1))
	if rest, want := put(30, 31, 1), (memmap.FileRange{Start: 30 * p, End: 31 * p}); rest != want {
		t.Errorf("with no room, %v is left, want %v", rest, want)
	}
	for _, c := range []struct {
		pages uint64
		cgID  uint32
		want  memmap.FileRange
		ok    bool
	}{
		{2, 1, memmap.FileRange{Start: 1 * p, End: 3 * p}, true},
		{2, 1, memmap.FileRange{Start: 3 * p, End: 4 * p}, true}, // no more in that range
		{1, 2, memmap.FileRange{Start: 0 * p, End: 1 * p}, true},
		{2, 2, memmap.FileRange{Start: 4 * p, End: 5 * p}, true},
		{1, 2, memmap.FileRange{}, false},
		{4, 1, memmap.FileRange{Start: 5 * p, End: 9 * p}, true},
	} {
		if got, ok := r.take(c.pages*p, c.cgID); ok != c.ok || got != c.want {
			t.Errorf("taking %d pages of cgroup %d returned %v, %t; want %v, %t", c.pages, c.cgID, got, ok, c.want, c.ok)
		}
	}
	mustHave(of(20, 21, 1))
	put(18, 20, 1)
	put(21, 23, 1) // joins the one before
	mustHave(of(18, 23, 1))
	put(15, 17, 1)
	put(17, 18, 1) // joins both
	mustHave(of(15, 23, 1))
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
