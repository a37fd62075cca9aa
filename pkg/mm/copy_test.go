package mm

import (
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/hostarch"
)

// Claims: a fault that copies much holds no lock meanwhile; what it copied is used only if it is still a copy of what is there; a
// fork leaves mapped for reading what it may; and whoever faults on pages that nobody else has any more need not fault again.

const copySize = 4 * copyUnit

// copyScene is a forked process that has written "old" to the first page of copySize bytes.
func copyScene(t *testing.T) (m, child *testMM, addr hostarch.Addr) {
	m = newTestMM(t, onRealMemory)
	addr = m.mustMap(copySize, hostarch.ReadWrite, fixedAt(m.base), committedNow)
	m.mustWrite(addr, "old")
	return m, m.fork(), addr
}

// whenCopied has do done once, when a fault has made its copy and holds no lock.
func whenCopied(t *testing.T, do func()) {
	testHookCopied = func() {
		testHookCopied = nil
		do()
	}
	t.Cleanup(func() { testHookCopied = nil })
}

func TestFaultCopiesWithoutLocks(t *testing.T) {
	m, child, addr := copyScene(t)
	copied := false
	whenCopied(t, func() {
		copied = true
		if !m.activeMu.TryLock() {
			t.Error("activeMu is locked while pages are copied")
			return
		}
		m.activeMu.Unlock()
		// Who writes there gets pages of his own, or the copied ones would be the child's no more.
		m.mustFault(addr+3*copyUnit, pageSize, hostarch.Write)
	})
	m.mustFault(addr, pageSize, hostarch.Write)
	if !copied {
		t.Fatal("nothing was copied without locks")
	}
	m.mustRead(addr, "old")
	m.mustWrite(addr, "new")
	child.mustRead(addr, "old")
	m.check()
	child.check()
}

// What was copied is not what is there any more, or is wanted no more.
func TestCopyThatCameTooLateIsGivenBack(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(m, child *testMM, addr hostarch.Addr)
		want string
		err  bool
	}{
		{"somebody else wrote", func(m, _ *testMM, addr hostarch.Addr) { m.mustWrite(addr, "new") }, "new", false},
		{"somebody else wrote nearby", func(m, _ *testMM, addr hostarch.Addr) { m.mustFault(addr+pageSize, pageSize, hostarch.Write) }, "old", false},
		{"unmapped", func(m, _ *testMM, addr hostarch.Addr) { m.mustUnmap(addr, copySize) }, "", true},
		{"replaced", func(m, _ *testMM, addr hostarch.Addr) { m.mustMap(copySize, hostarch.ReadWrite, fixedAt(addr)) }, zeroes(3), false},
		{"given up", func(m, _ *testMM, addr hostarch.Addr) {
			if err := m.Decommit(addr, copySize); err != nil {
				m.t.Error(err)
			}
		}, zeroes(3), false},
		{"part unmapped", func(m, _ *testMM, addr hostarch.Addr) { m.mustUnmap(addr+pageSize, pageSize) }, "old", false},
		{"another fork", func(m, _ *testMM, _ hostarch.Addr) { m.fork() }, "old", false},
		{"somebody else wrote, and another fork", func(m, _ *testMM, addr hostarch.Addr) {
			m.mustWrite(addr, "new")
			m.fork()
		}, "new", false},
		{"the child is gone", func(_, child *testMM, _ hostarch.Addr) { child.exit() }, "old", false},
		{"the child is gone, somebody else wrote, and another fork", func(m, child *testMM, addr hostarch.Addr) {
			child.exit()
			m.mustWrite(addr, "new") // not in place: the pages that are being copied stay what they are
			m.fork()
		}, "new", false},
		{"moved", func(m, _ *testMM, addr hostarch.Addr) {
			if _, err := m.MRemap(m.ctx, addr, copySize, copySize, MRemapOpts{Move: MRemapMustMove, NewAddr: addr + 1<<30}); err != nil {
				m.t.Error(err)
			}
		}, "", true},
		{"pinned", func(m, _ *testMM, addr hostarch.Addr) {
			prs, err := m.Pin(m.ctx, rangeAt(addr, pageSize), hostarch.Read, false)
			if err != nil {
				m.t.Error(err)
			}
			Unpin(prs)
		}, "old", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, child, addr := copyScene(t)
			whenCopied(t, func() { c.do(m, child, addr) })
			err := m.fault(addr, hostarch.Write)
			if testHookCopied != nil {
				t.Error("nothing was copied without locks")
			}
			if (err != nil) != c.err {
				t.Fatalf("the fault: %v", err)
			}
			if err == nil {
				m.mustRead(addr, c.want)
				m.mustWrite(addr, "own")
				m.mustRead(addr, "own")
			}
			m.check()
			m.exit() // says what is left in the memory file
		})
	}
}

// Little is copied on the spot, and what a file may want back, too.
func TestCopiesWithLocks(t *testing.T) {
	whenCopied(t, func() { t.Error("a copy was made without locks") })
	m := newTestMM(t, onRealMemory)
	little := m.mustMap(pageSize, hostarch.ReadWrite, committedNow)
	m.mustWrite(little, "old")
	child := m.fork()
	m.mustWrite(little, "new")
	child.mustRead(little, "old")
	f := newTestMappable(t, m.mf, copySize)
	file := m.mustMap(copySize, hostarch.ReadWrite, privateFile(f, 0), populated)
	m.mustFault(file, copySize, hostarch.Write)
	m.check()
}

func TestForkLeavesPagesMappedForReading(t *testing.T) {
	m := newTestMM(t)
	m.mapPopulated(m.base, 4*pageSize)
	child := m.fork()
	if h, ok := m.as.at(m.base); !ok || h.perms != hostarch.Read {
		t.Errorf("after fork the host has %v", m.as.dump())
	}
	m.check()
	child.check()
}

// Where mapping costs by size, it would be all that a fork unmaps.
func TestForkUnmapsWhereMappingCostsBySize(t *testing.T) {
	m := newTestMM(t, withMapUnit(hostarch.HugePageSize))
	m.mapPopulated(m.base, 4*pageSize)
	child := m.fork()
	if h, ok := m.as.at(m.base); ok {
		t.Errorf("after fork the host has %v", h)
	}
	m.check()
	child.check()
}

// If mapping fails, nothing stays mapped for writing.
func TestForkThatCannotMapUnmaps(t *testing.T) {
	m := newTestMM(t)
	m.mapPopulated(m.base, 4*pageSize)
	m.as.on("MapFile", 1, nil, func(any) error { return errors.New("the host has no room") })
	child := m.fork()
	if h, ok := m.as.at(m.base); ok {
		t.Errorf("after fork the host has %v", h)
	}
	m.check()
	child.check()
}

func TestReaderOfPagesThatNobodyElseHasMayWrite(t *testing.T) {
	m := newTestMM(t)
	m.mapPopulated(m.base, 4*pageSize)
	m.fork().exit()
	m.mustFault(m.base, pageSize, hostarch.Read)
	if h, ok := m.as.at(m.base); !ok || h.perms != hostarch.ReadWrite {
		t.Errorf("after the fault the host has %v", m.as.dump())
	}
	child := m.fork()
	m.mustFault(m.base, pageSize, hostarch.Read)
	if h, ok := m.as.at(m.base); !ok || h.perms != hostarch.Read {
		t.Errorf("while a child has the pages, too, the host has %v", m.as.dump())
	}
	m.check()
	child.check()
}

// If the copy cannot be mapped, what it replaces is not mapped either.
func TestCopyThatCannotBeMapped(t *testing.T) {
	m, child, addr := copyScene(t)
	failed := errors.New("the host has no room")
	m.as.on("MapFile", 1, nil, func(any) error { return failed })
	if err := m.fault(addr, hostarch.Write); err != failed {
		t.Errorf("the fault: %v", err)
	}
	if n := m.as.mappedPages(rangeAt(addr, copyUnit)); n != 0 {
		t.Errorf("%#x bytes are mapped of what was replaced", n)
	}
	m.check()
	child.check()
}

// Threads write to pages of their own, next to each other, while the process forks: each finds what it wrote, and children what was there.
func TestWritersAndForks(t *testing.T) {
	m := newTestMM(t, onRealMemory)
	m.severalThreads()
	const writers, rounds = 3, 60
	addr := m.mustMap(copySize, hostarch.ReadWrite, fixedAt(m.base), committedNow)
	word := func(n uint32) string { return string(binary.LittleEndian.AppendUint32(nil, n)) }
	testHookCopied = func() { time.Sleep(100 * time.Microsecond) } // for others to get in between
	t.Cleanup(func() { testHookCopied = nil })
	var stop atomic.Bool
	var done sync.WaitGroup
	for w := range hostarch.Addr(writers) {
		done.Go(func() {
			for n := uint32(1); !stop.Load(); n++ {
				// Another unit each time: the first write there after a fork copies it.
				at := addr + hostarch.Addr(n)*copyUnit%copySize + w*pageSize
				if err := m.store(at, []byte(word(n))); err != nil {
					t.Error(err)
					return
				}
				if got, err := m.load(at, 4); err != nil || string(got) != word(n) {
					t.Errorf("writer %d wrote %d and reads %x, %v", w, n, got, err)
					return
				}
			}
		})
	}
	for range rounds {
		child := m.fork()
		var first [copySize / copyUnit][writers]string
		for range 2 {
			for u := range hostarch.Addr(copySize / copyUnit) {
				for w := range hostarch.Addr(writers) {
					got, err := child.load(addr+u*copyUnit+w*pageSize, 4)
					if was := first[u][w]; err != nil || was != "" && was != string(got) {
						t.Errorf("a child reads %x and then %x, %v", was, got, err)
					}
					first[u][w] = string(got)
				}
			}
			child.mustFault(addr+copyUnit+writers*pageSize, pageSize, hostarch.Write)
		}
		child.exit()
	}
	stop.Store(true)
	done.Wait()
	m.check()
}
