package mm

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"testing"

	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
)

// Claims: a fork keeps nobody waiting for what the host takes long to protect, and the child has all memory as it was at one moment nevertheless.

// newMuch returns a MemoryManager of several threads with so much at addr that a fork protects it ahead, in some steps, and with room at hole where there are no pages.
func newMuch(t *testing.T) (m *testMM, addr, hole hostarch.Addr) {
	m = newTestMM(t, onRealMemory)
	m.severalThreads()
	addr = m.mustMap(2*forkAhead, hostarch.ReadWrite, fixedAt(m.base), committedNow)
	hole = m.mustMap(2*forkAhead, hostarch.ReadWrite)
	return m, addr, hole
}

func TestNobodyWaitsWhileForkProtectsMuch(t *testing.T) {
	m, addr, hole := newMuch(t)
	first, last := addr, addr+2*forkAhead-pageSize
	m.mustWrite(first, "old")
	m.mustWrite(last, "old")
	p := m.as.pauseIf("Unmap", 2, nil)
	var child *MemoryManager
	fork := spawn(t, "fork", func() (err error) { child, err = m.Fork(m.ctx); return err })
	p.wait()
	write := func(what string) {
		for name, a := range map[string]hostarch.Addr{"a page that is protected": first, "a page that is not": last, "a new page": hole} {
			spawn(t, name, func() error { return m.store(a, []byte(what)) }).mustSucceed()
		}
	}
	write("one")
	write("two")
	p.resume()
	fork.mustSucceed()
	if m.forking != nil {
		t.Error("the fork is not over")
	}
	c := wrapMM(t, child, m.ctx.clone())
	write("new")
	for _, a := range []hostarch.Addr{first, last, hole} {
		c.mustRead(a, "two")
		c.mustWrite(a, "own")
		m.mustRead(a, "new")
	}
	m.check()
	c.check()
	c.exit()
	m.check()
}

// What is copied together with a page that somebody needs, others may still have mapped for writing: they do not write to what was copied already.
func TestNoWriteIsLostWhileForkProtectsMuch(t *testing.T) {
	m, addr, _ := newMuch(t)
	page := addr + 2*forkAhead - 2*pageSize
	near := page + pageSize
	m.mustWrite(page, "old")
	m.mustWrite(near, "old")
	p := m.as.pauseIf("Unmap", 2, nil)
	fork := spawn(t, "fork", func() error { m.fork().exit(); return nil })
	p.wait()
	if h, ok := m.as.at(near); !ok || !h.perms.Write {
		t.Fatalf("the host has %v already", h)
	}
	copied := false
	testHookCopied = func() {
		if !copied {
			copied = true
			m.mustWrite(near, "new")
		}
	}
	defer func() { testHookCopied = nil }()
	m.mustFault(page, pageSize, hostarch.Write)
	if !copied {
		t.Error("nothing was copied")
	}
	m.mustRead(near, "new")
	p.resume()
	fork.mustSucceed()
	m.mustRead(near, "new")
	m.check()
}

// A thread writes to some pages, one after the other, again and again: some that are protected ahead, one that is written to after each fork, and one that is new. No child has a write without those
// before it.
func TestForkOfMuchIsOneMoment(t *testing.T) {
	ahead := 0
	for range 20 {
		ahead += forkWhileOneWrites(t, 10)
	}
	if ahead < 20 {
		t.Errorf("%d forks had much to protect, want the first of each process at least", ahead)
	}
}

// forkWhileOneWrites forks a new process so many times, and returns how many of the forks had much to protect: the pages that are copied lie apart.
func forkWhileOneWrites(t *testing.T, times int) (ahead int) {
	t.Helper()
	m, addr, hole := newMuch(t)
	middle := addr + forkAhead
	small := m.mustMap(2*pageSize, hostarch.ReadWrite)
	var stop atomic.Bool
	var done sync.WaitGroup
	begun := make(chan struct{}) // closed when all of them are there
	pages := func(n uint32) []hostarch.Addr {
		return []hostarch.Addr{addr, small, addr + pageSize, hole + hostarch.Addr(n%64)*pageSize, addr + 2*forkAhead - pageSize}
	}
	done.Go(func() {
		for n := uint32(1); !stop.Load(); n++ {
			data := binary.LittleEndian.AppendUint32(nil, n)
			for _, a := range pages(n) {
				if err := m.store(a, data); err != nil {
					t.Error(err)
					return
				}
			}
			if n == 64 {
				close(begun)
			}
		}
	})
	<-begun
	for range times {
		if p, ar, _, ok := m.pmaAt(middle); ok && !p.needCOW && ar.Length() >= forkAhead {
			ahead++
		}
		child := m.fork()
		n, _ := child.loadUint32(addr)
		last := n
		for i, a := range pages(n) {
			got, _ := child.loadUint32(a)
			if i == 3 && got == n-64 {
				got = n - 1 // this turn has not come here, and the one before wrote to another page
			}
			if got > last || got < n-1 {
				t.Errorf("a child has %d in the first page, %d in one and then %d", n, last, got)
			}
			last = got
		}
		child.exit()
		// What nobody else has any more is one piece again.
		if err := m.store(middle, []byte("all")); err != nil {
			t.Fatal(err)
		}
	}
	stop.Store(true)
	done.Wait()
	m.check()
	return ahead
}

// Of what a file gives up while a fork protects much, the child has nothing either: no copies of its pages.
func TestInvalidateWhileForkProtectsMuch(t *testing.T) {
	m := newTestMM(t, onRealMemory)
	m.severalThreads()
	f := newTestMappable(t, m.mf, 2*forkAhead)
	addr := m.mustMap(2*forkAhead, hostarch.ReadWrite, privateFile(f, 0), fixedAt(m.base))
	for off := hostarch.Addr(2*forkAhead - pieceSize); off < 2*forkAhead; off -= pieceSize { // downwards, copies are neighbours
		m.mustFault(addr+off, pieceSize, hostarch.Write)
	}
	if p, ar, _, _ := m.pmaAt(addr); !p.private || p.needCOW || ar.Length() < forkAhead {
		t.Fatalf("there is %+v at %v", p, ar)
	}
	p := m.as.pauseIf("Unmap", 2, nil)
	var child *MemoryManager
	fork := spawn(t, "fork", func() (err error) { child, err = m.Fork(m.ctx); return err })
	p.wait()
	spawn(t, "invalidate", func() error {
		f.set.invalidate(memmap.MappableRange{End: forkAhead}, memmap.InvalidateOpts{InvalidatePrivate: true})
		return nil
	}).mustSucceed()
	p.resume()
	fork.mustSucceed()
	c := wrapMM(t, child, m.ctx.clone())
	for _, mm := range []*testMM{m, c} {
		if n, want := mm.residentBytes(rangeAt(addr, 2*forkAhead)), uint64(forkAhead); n != want {
			t.Errorf("%s has %#x bytes, want %#x", mm.name, n, want)
		}
		mm.check()
	}
}

// Of what the parent gives up while a fork protects much, the child has nothing either.
func TestDecommitWhileForkProtectsMuch(t *testing.T) {
	m, addr, hole := newMuch(t)
	m.mustWrite(addr, "old")
	m.mustWrite(addr+pageSize, "old")
	p := m.as.pauseIf("Unmap", 2, nil)
	var child *MemoryManager
	fork := spawn(t, "fork", func() (err error) { child, err = m.Fork(m.ctx); return err })
	p.wait()
	spawn(t, "madvise", func() error { return m.Decommit(addr, pageSize) }).mustSucceed()
	m.mustWrite(hole, "later")
	p.resume()
	fork.mustSucceed()
	c := wrapMM(t, child, m.ctx.clone())
	c.mustRead(hole, "later")
	c.mustRead(addr, zeroes(3))
	c.mustRead(addr+pageSize, "old")
	m.check()
	c.check()
}

// Pages that are written to after each fork are copied, and not shared, wherever they lie.
func TestForkSharesNoHotPagesAhead(t *testing.T) {
	m, addr, _ := newMuch(t)
	hot := addr + forkAhead
	m.fork().exit()
	m.mustWrite(hot, "hot") // all of it is nobody else's again
	if p, ar, _, _ := m.pmaAt(hot); p.needCOW || ar.Length() != 2*forkAhead {
		t.Fatalf("the page is in %+v at %v", p, ar)
	}
	child := m.fork()
	if p, _, _, _ := m.pmaAt(hot); p.needCOW {
		t.Error("the page is shared")
	}
	if p, _, _, _ := m.pmaAt(hot + pageSize); !p.needCOW {
		t.Error("the page after it is not shared")
	}
	m.check()
	child.check()
}

// Pages that are pinned are looked at one by one, and a process of one thread keeps nobody waiting.
func TestForkThatHasNothingAhead(t *testing.T) {
	for name, prepare := range map[string]func(m *testMM){
		"pinned": func(m *testMM) {
			m.severalThreads()
			m.activeMu.Lock()
			m.hasPinned = true
			m.activeMu.Unlock()
		},
		"alone": func(m *testMM) {},
	} {
		t.Run(name, func(t *testing.T) {
			m := newTestMM(t, onRealMemory)
			prepare(m)
			addr := m.mustMap(2*forkAhead, hostarch.ReadWrite, fixedAt(m.base), committedNow)
			m.mustWrite(addr, "old")
			var child *testMM
			calls := m.callsOf(func() { child = m.fork() })
			if n := calls.mapFile + calls.unmap; n != 1 {
				t.Errorf("%d calls, want one:\n%s", n, callString(calls.calls))
			}
			m.mustWrite(addr, "new")
			child.mustRead(addr, "old")
			m.check()
			child.check()
		})
	}
}
