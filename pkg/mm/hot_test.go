package mm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/safemem"
)

// Claims: what a parent wrote to after a fork, the next one copies, so that the parent need not fault for it again; as
// long as it goes on writing there, and there is memory. The child has what was there at one moment, whoever writes.

// newHot returns a MemoryManager of 8 pages, of which one was written to since the fork before; alone, or with another user.
func newHot(t *testing.T, alone bool, mods ...func(*mmConfig)) (m *testMM, addr, hot hostarch.Addr) {
	m = newTestMM(t, append(mods, onRealMemory)...)
	if !alone {
		m.severalThreads()
	}
	addr = m.mustMap(8*pageSize, hostarch.ReadWrite, fixedAt(m.base), committedNow)
	hot = addr + 3*pageSize
	m.mustWrite(hot, "old")
	m.fork().exit()
	m.mustWrite(hot, "old")
	return m, addr, hot
}

// sharedPages returns how many of the 8 pages at addr are copied on write.
func (m *testMM) sharedPages(addr hostarch.Addr) (n int) {
	for i := range hostarch.Addr(8) {
		if p, _, _, ok := m.pmaAt(addr + i*pageSize); ok && p.needCOW {
			n++
		}
	}
	return n
}

func TestForkCopiesWhatIsWrittenAgain(t *testing.T) {
	for _, alone := range []bool{true, false} {
		t.Run(fmt.Sprintf("alone %t", alone), func(t *testing.T) {
			m, addr, hot := newHot(t, alone)
			_, _, page, _ := m.pmaAt(hot)
			var child *testMM
			calls := m.callsOf(func() { child = m.fork() }).calls
			if h, ok := m.as.at(hot); !ok || h.perms != hostarch.ReadWrite {
				t.Errorf("after the fork the host has %v for the page", h)
			}
			if n := m.sharedPages(addr); n != 7 {
				t.Errorf("%d of 8 pages are shared, want 7", n)
			}
			// The copy is for whom the host has to map the page anyway.
			stays := map[bool]*testMM{true: m, false: child}[alone]
			if _, _, now, _ := stays.pmaAt(hot); now != page {
				t.Errorf("%s has %v, the page was %v", stays.name, now, page)
			}
			if p, _, _, _ := child.pmaAt(hot); p.needCOW || !p.effectivePerms.Write {
				t.Errorf("the child's page is %+v", p)
			}
			m.mustWrite(hot, "new")
			child.mustRead(hot, "old")
			child.mustWrite(hot, "own")
			m.mustRead(hot, "new")

			// If there are other threads, nobody may write to the page before it is copied.
			protected := 0
			for _, c := range calls {
				if c.ar.Contains(hot) && !c.perms.Write {
					protected++
				}
			}
			if want := map[bool]int{true: 0, false: 1}[alone]; protected != want {
				t.Errorf("the page was protected %d times, want %d:\n%s", protected, want, callString(calls))
			}
			m.check()
			child.check()
		})
	}
}

// Pages that stay as they are are shared again after some forks, and those that do not are not.
func TestPagesThatAreNoLongerWrittenAreShared(t *testing.T) {
	m, addr, hot := newHot(t, true)
	second := hot + 2*pageSize
	for i := range mostIdle + 3 {
		m.fork().exit()
		want := 6
		if i == 0 || i > mostIdle {
			want = 7 // the second page was written to for the first time since a fork after the first one; the other one is forgotten
		}
		if n := m.sharedPages(addr); n != want {
			t.Errorf("after fork %d, %d of 8 pages are shared, want %d", i+1, n, want)
		}
		m.mustWrite(second, string(rune('1'+i)))
	}
	if len(m.hot.pages) != 1 || m.hot.pages[0].addr != second {
		t.Errorf("what is hot is %v", m.hot.pages)
	}
	m.check()
}

// Somebody who writes everywhere does not make forks copy everything.
func TestForkCopiesFewPages(t *testing.T) {
	m := newTestMM(t)
	m.severalThreads()
	const n = 2 * mostHot
	addr := m.mustMap(n*pageSize, hostarch.AnyAccess, committedNow) // of code, each page is copied by itself
	child := m.fork()
	for i := range hostarch.Addr(n) {
		m.mustFault(addr+i*pageSize, pageSize, hostarch.Write)
	}
	used := usedPages(m.mf)
	calls := m.callsOf(func() { m.fork() })
	if got := (usedPages(m.mf) - used) / pageSize; got != mostHot {
		t.Errorf("a fork copied %d pages, want %d", got, mostHot)
	}
	// Pages next to each other are protected together, and mapped again together.
	if n := calls.mapFile + calls.unmap; n > mostHot/4 {
		t.Errorf("the host was called %d times:\n%s", n, callString(calls.calls))
	}
	m.check()
	child.check()
}

func TestForkWithoutMemoryForHotPagesSharesThem(t *testing.T) {
	for _, alone := range []bool{true, false} {
		mf, leave := newScarceFile(t)
		m, addr, hot := newHot(t, alone, withFile(mf))
		leave(0)
		child := m.fork()
		if n := m.sharedPages(addr); n != 8 {
			t.Errorf("%d of 8 pages are shared", n)
		}
		if h, ok := m.as.at(hot); ok && h.perms.Write {
			t.Errorf("the host has %v for a page that is shared", h)
		}
		child.mustRead(hot, "old")
		child.exit()
		m.mustWrite(hot, "new") // nobody else has it
		m.check()
	}
}

// Memory for the copies is there before anybody has to wait for the fork, and what no copy is made of is given back.
func TestForkHasMemoryForCopiesBefore(t *testing.T) {
	m, _, hot := newHot(t, false)
	used := usedPages(m.mf)
	p := m.as.pauseIf("MapFile", 1, nil)
	var child *MemoryManager
	fork := spawn(t, "fork", func() (err error) { child, err = m.Fork(m.ctx); return err })
	p.wait() // with activeMu locked
	if got := usedPages(m.mf) - used; got != pageSize {
		t.Errorf("before anything is copied there are %d bytes for it, want %d", got, pageSize)
	}
	p.resume()
	fork.mustSucceed()
	wrapMM(t, child, m.ctx.clone()).exit()

	m.mustWrite(hot, "new")
	if err := m.SetDontFork(hot, pageSize, true); err != nil {
		t.Fatal(err)
	}
	used = usedPages(m.mf)
	other := m.fork()
	if got := usedPages(m.mf); got != used {
		t.Errorf("a fork that copies nothing made of %d bytes %d", used, got)
	}
	m.check()
	other.check()
}

// What cannot be copied is shared, and memory for a copy is given back.
func TestHotPagesThatCannotBeReadAreShared(t *testing.T) {
	m, addr, hot := newHot(t, false)
	unreadable, err := unix.Mmap(-1, 0, pageSize, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(unreadable)
	m.activeMu.Lock()
	whole, _ := m.pmas.Find(uint64(hot))
	e := m.isolatePMA(whole, rangeAt(hot, pageSize))
	e.Value.mappings = safemem.BlockSeqOf(safemem.BlockFromUnsafeSlice(unreadable))
	m.activeMu.Unlock()
	used := usedPages(m.mf)
	child := m.fork()
	for _, mm := range []*testMM{m, child} {
		mm.activeMu.Lock()
		e, _ := mm.pmas.Find(uint64(hot))
		e.Value.mappings = safemem.BlockSeq{}
		mm.activeMu.Unlock()
	}
	if n := m.sharedPages(addr); n != 8 {
		t.Errorf("%d of 8 pages are shared", n)
	}
	if got := usedPages(m.mf); got != used {
		t.Errorf("%d bytes are used, want %d", got, used)
	}
	m.mustWrite(hot, "new")
	child.mustRead(hot, "old")
	m.check()
	child.check()
}

// What the host will not map for writing again, faults.
func TestHotPagesThatCannotBeMapped(t *testing.T) {
	m, _, hot := newHot(t, false)
	m.as.on("MapFile", 0, func(arg any) bool { c := arg.(asCall); return c.perms.Write }, func(any) error { return errors.New("the host has no room") })
	child := m.fork()
	if h, ok := m.as.at(hot); ok && h.perms.Write {
		t.Errorf("the host has %v", h)
	}
	child.mustRead(hot, "old")
	m.check()
	child.check()
}

// A thread writes to one page and then to another, again and again. No child has only the second of two writes.
func TestForkCopiesHotPagesAtOneMoment(t *testing.T) {
	m, addr, _ := newHot(t, false)
	first, second := addr, addr+7*pageSize
	var stop atomic.Bool
	var done sync.WaitGroup
	done.Go(func() {
		for n := uint32(1); !stop.Load(); n++ {
			data := binary.LittleEndian.AppendUint32(nil, n)
			for _, a := range []hostarch.Addr{first, second} {
				if err := m.store(a, data); err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
	copied := 0
	for range 300 {
		child := m.fork()
		if p, _, _, _ := child.pmaAt(first); !p.needCOW {
			copied++
		}
		one, _ := child.loadUint32(first)
		two, _ := child.loadUint32(second)
		if one != two && one != two+1 {
			t.Errorf("a child has %d and then %d", one, two)
		}
		child.exit()
	}
	stop.Store(true)
	done.Wait()
	if copied == 0 {
		t.Error("no fork copied the page")
	}
	m.check()
}

// While the host maps the pages for writing again, faults elsewhere go on; who gives one of them up waits for that.
func TestHotPagesAreMappedWithoutLock(t *testing.T) {
	m, addr, hot := newHot(t, false)
	m.activeMu.Lock()
	m.hot.wrote(addr + 7*pageSize)
	m.activeMu.Unlock()
	elsewhere := m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(addr+64*pageSize), committedNow)
	p := m.as.pauseIf("MapFile", 1, func(arg any) bool { return arg.(asCall).perms.Write })
	var child *MemoryManager
	fork := spawn(t, "fork", func() (err error) { child, err = m.Fork(m.ctx); return err })
	p.wait()
	spawn(t, "fault", func() error { return m.fault(addr, hostarch.Read) }).mustSucceed()
	spawn(t, "madvise elsewhere", func() error { return m.Decommit(elsewhere, pageSize) }).mustSucceed()
	decommit := spawn(t, "madvise", func() error { return m.Decommit(hot, pageSize) })
	decommit.mustBlock()
	p.resume()
	fork.mustSucceed()
	decommit.mustSucceed()
	if h, ok := m.as.at(hot); ok {
		t.Errorf("the host has %v for a page that was given up", h)
	}
	m.mustRead(hot, "\x00\x00\x00")
	wrapMM(t, child, m.ctx.clone()).mustRead(hot, "old")
	m.check()
}

// newHotEnds returns a MemoryManager, alone or with another user, and n pages, of which the first and the last were written to since the fork before, with their
// surroundings. What lies in between, others may have.
func newHotEnds(t *testing.T, alone bool, n hostarch.Addr) (m *testMM, first, last hostarch.Addr) {
	m = newTestMM(t, onRealMemory)
	if !alone {
		m.severalThreads()
	}
	first = m.mustMap(uint64(n*pageSize), hostarch.ReadWrite, fixedAt(m.base), committedNow)
	last = first + (n-1)*pageSize
	m.forkAndWrite(first, last)
	return m, first, last
}

// forkAndWrite forks, and writes to pages before the child exits.
func (m *testMM) forkAndWrite(pages ...hostarch.Addr) {
	child := m.fork()
	for _, p := range pages {
		m.mustWrite(p, "hot")
	}
	child.exit()
}

// What a fork has to protect, it unmaps together with what little lies in between.
func TestForkUnmapsWhatLiesBetween(t *testing.T) {
	const near, far = 64, mostBetween/pageSize + 64
	for _, c := range []struct {
		name   string
		n      hostarch.Addr
		code   bool // in between
		alone  bool
		unmaps bool
	}{
		{"little", near, false, false, true},
		{"much", far, false, false, false},
		{"code", near, true, false, false},
		{"little, of one thread", near, false, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, first, last := newHotEnds(t, c.alone, c.n)
			between := first + c.n/2*pageSize
			if c.code {
				m.mustMap(pageSize, hostarch.ReadExecute, fixedAt(between), committedNow)
			}
			var child *testMM
			calls := m.callsOf(func() { child = m.fork() })
			if _, ok := m.as.at(between); ok == c.unmaps {
				t.Errorf("that the host has pages in between is %t after:\n%s", ok, callString(calls.calls))
			}
			if c.unmaps && calls.unmap+calls.mapFile != 3 {
				t.Errorf("calls, want one and two for the pages that are written to:\n%s", callString(calls.calls))
			}
			m.mustFault(between, pageSize, hostarch.Read)
			m.mustWrite(first, "new")
			m.mustWrite(last, "new")
			child.mustRead(first, "hot")
			child.mustRead(last, "hot")
			m.check()
			child.check()
		})
	}
}

// Pages between two that are written to after each fork are copied with them, if they are few, whoever else has them: nobody faults who writes there, and the host maps all of them
// in one call.
func TestForkCopiesWhatLiesBetweenHotPages(t *testing.T) {
	for _, c := range []struct {
		between int // pages
		alone   bool
		copied  bool
	}{{mostGap, false, true}, {mostGap + 1, false, false}, {mostGap, true, false}} {
		t.Run(fmt.Sprintf("%d, alone %t", c.between, c.alone), func(t *testing.T) {
			m, first, last := newHotEnds(t, c.alone, hostarch.Addr(c.between)+2)
			between := first + hostarch.Addr(c.between)/2*pageSize
			older := m.fork() // nobody writes there, so all three have it
			m.mustWrite(first, "two")
			m.mustWrite(last, "two")
			var child *testMM
			used := usedPages(m.mf)
			calls := m.callsOf(func() { child = m.fork() })
			used = (usedPages(m.mf) - used) / pageSize
			if want := map[bool]uint64{true: uint64(c.between) + 2, false: 2}[c.copied]; used != want {
				t.Errorf("%d pages were copied, want %d", used, want)
			}
			p, ar, _, _ := m.pmaAt(between)
			if copied := !p.needCOW; copied != c.copied {
				t.Fatalf("that the page was copied is %t, and there is %+v at %v", copied, p, ar)
			}
			if c.copied && (calls.unmap != 1 || calls.mapFile != 1 || !ar.IsSupersetOf(hostarch.AddrRange{Start: first, End: last + pageSize})) {
				t.Errorf("what was copied is in %v, and the host was called like this:\n%s", ar, callString(calls.calls))
			}
			for i, mm := range []*testMM{older, m, child} {
				mm.mustWrite(between, string(rune('a'+i)))
			}
			for i, mm := range []*testMM{older, m, child} {
				mm.mustRead(between, string(rune('a'+i)))
				mm.check()
			}
			older.mustRead(first, "hot")
			child.mustRead(first, "two")
			child.mustRead(last, "two")
		})
	}
}

// A pinned page stays where it is, wherever that is.
func TestPinnedPageBetweenHotPagesStays(t *testing.T) {
	m, first, last := newHotEnds(t, false, mostGap)
	between := first + mostGap/2*pageSize
	prs, err := m.Pin(m.ctx, rangeAt(between, pageSize), hostarch.Write, false)
	if err != nil {
		t.Fatal(err)
	}
	defer Unpin(prs)
	child := m.fork()
	m.mustWrite(between, "new")
	if _, _, page, _ := m.pmaAt(between); page != prs[0].FileRange() {
		t.Errorf("the parent has %v, where %v is pinned", page, prs[0].FileRange())
	}
	child.mustRead(between, zeroes(3))
	child.mustRead(first, "hot")
	child.mustRead(last, "hot")
	m.check()
	child.check()
}

// Pages of two mappings are two copies, and what nobody may write to is shared.
func TestCopiesOfHotPagesAllowWhatMappingsAllow(t *testing.T) {
	//	|      hot      |    hot   |    6 pages    |    hot    |
	//	 may be executed                             read-only
	m, first, last := newHotEnds(t, false, 8)
	second := first + pageSize
	m.activeMu.Lock()
	m.hot.wrote(second)
	m.hot.wrote(last)
	m.activeMu.Unlock()
	for addr, perms := range map[hostarch.Addr]hostarch.AccessType{first: hostarch.AnyAccess, last: hostarch.Read} {
		if err := m.MProtect(addr, pageSize, perms, false); err != nil {
			t.Fatal(err)
		}
	}
	child := m.fork()
	for _, mm := range []*testMM{m, child} {
		for addr, want := range map[hostarch.Addr]hostarch.AccessType{first: hostarch.AnyAccess, second: hostarch.ReadWrite, last: hostarch.Read} {
			if p, _, _, _ := mm.pmaAt(addr); p.effectivePerms != want || p.needCOW != !want.Write {
				t.Errorf("%s allows %v at %#x, want %v: %+v", mm.name, p.effectivePerms, addr, want, p)
			}
		}
		mm.mustRead(first, "hot")
		mm.check()
	}
}

func TestRunsOfHotPages(t *testing.T) {
	at := func(from, to int) hostarch.AddrRange {
		return hostarch.AddrRange{Start: hostarch.Addr(from) * pageSize, End: hostarch.Addr(to) * pageSize}
	}
	for _, c := range []struct {
		pages []int
		gap   int
		want  []hostarch.AddrRange
	}{
		{nil, 4, nil},
		{[]int{1, 2, 4}, 0, []hostarch.AddrRange{at(1, 3), at(4, 5)}},
		{[]int{1, 2, 7, 13}, 4, []hostarch.AddrRange{at(1, 8), at(13, 14)}},
		// More than mostCopied pages: with half of the gap they are fewer.
		{[]int{0, mostCopied, mostCopied + mostCopied/4}, mostCopied, []hostarch.AddrRange{at(0, 1), at(mostCopied, mostCopied+mostCopied/4+1)}},
	} {
		var h hotPages
		for _, p := range c.pages {
			h.wrote(hostarch.Addr(p) * pageSize)
		}
		if got := h.runs(c.gap); !slices.Equal(got, c.want) {
			t.Errorf("pages %v with gaps of %d are in %v, want %v", c.pages, c.gap, got, c.want)
		}
	}
}

// What threads need first after a fork, the host maps first after the next.
func TestPagesThatFaultedFirstAreMappedFirst(t *testing.T) {
	m, first, last := newHotEnds(t, false, 2*mostGap)
	mapped := func(during func()) (order []hostarch.Addr) {
		m.as.forget()
		during()
		for _, c := range m.as.history() {
			if c.op == "MapFile" && c.perms.Write {
				order = append(order, c.ar.Start)
			}
		}
		return order
	}
	times := 0
	write := func() {
		times++
		m.mustWrite(first, fmt.Sprint(times))
		m.mustWrite(last, fmt.Sprint(times))
	}
	if got := mapped(func() { m.fork().exit() }); !slices.Equal(got, []hostarch.Addr{first, last}) {
		t.Fatalf("a fork mapped %v for writing", got)
	}
	write()
	p := m.as.pauseIf("MapFile", 1, func(arg any) bool { return arg.(asCall).perms.Write })
	fork := spawn(t, "fork", func() error { m.fork().exit(); return nil })
	p.wait()
	m.mustFault(last, pageSize, hostarch.Write)
	p.resume()
	fork.mustSucceed()
	for range 3 {
		write()
		if got := mapped(func() { m.fork().exit() }); !slices.Equal(got, []hostarch.Addr{last, first}) {
			t.Errorf("after a fault the next fork mapped %v for writing", got)
		}
	}
	m.check()
}

// Huge pages are not torn apart for that.
func TestForkSharesHugePages(t *testing.T) {
	m := newTestMM(t, withFile(newTestFile(t, withHugePages)), onRealMemory)
	addr := m.mustMap(hostarch.HugePageSize, hostarch.ReadWrite, fixedAt(m.base))
	m.mustWrite(addr, "old")
	m.fork().exit()
	m.mustWrite(addr, "new")
	child := m.fork()
	if p, ar, _, _ := m.pmaAt(addr); !p.huge || !p.needCOW || ar.Length() != hostarch.HugePageSize {
		t.Errorf("the parent has %+v at %v", p, ar)
	}
	child.mustRead(addr, "new")
	m.check()
	child.check()
}
