// Claims: while the host does what it was asked for, nobody waits who is elsewhere; and who changes what it was asked for waits until it is done,
// so that nothing is left of it.

package mm

import (
	"fmt"
	"math/rand"
	"runtime"
	"testing"

	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
	"gvisor.dev/gvisor/pkg/usermem"
)

func TestNobodyElsewhereWaitsForTheHost(t *testing.T) {
	const n = 4 * pageSize
	for _, c := range []struct {
		name string
		call string
		op   func(m trapMM) error
	}{
		{"munmap", "Unmap", func(m trapMM) error { return m.MUnmap(m.ctx, m.base, n) }},
		{"munmap of much", "Unmap", func(m trapMM) error { return m.MUnmap(m.ctx, m.base+1<<30, manyPieces) }},
		{"mremap of much", "Unmap", func(m trapMM) error { return m.move(rangeAt(m.base+1<<30, manyPieces), m.base+2<<30) }},
		{"replacement", "MapFile", func(m trapMM) error {
			_, err := m.mmap(n, hostarch.ReadWrite, fixedAt(m.base), populated)
			return err
		}},
		{"replacement by a file", "Unmap", func(m trapMM) error {
			f := newTestMappable(m.t, m.mf, n)
			_, err := m.mmap(n, hostarch.ReadWrite, fixedAt(m.base), sharedFile(f, 0))
			return err
		}},
		{"mmap", "MapFile", func(m trapMM) error {
			_, err := m.mmap(n, hostarch.ReadWrite, populated)
			return err
		}},
		{"mmap of much", "MapFile", func(m trapMM) error {
			_, err := m.mmap(manyPieces, hostarch.ReadWrite, committedNow)
			return err
		}},
		{"mprotect", "MapFile", func(m trapMM) error { return m.MProtect(m.base, n, hostarch.Read, false) }},
		{"mprotect of much", "Unmap", func(m trapMM) error { return m.MProtect(m.base+1<<30, manyPieces, hostarch.Read, false) }},
		{"mremap", "MapFile", func(m trapMM) error { return m.move(rangeAt(m.base, n), m.base+3<<30) }},
		{"fault", "MapFile", func(m trapMM) error { return m.fault(m.base, hostarch.Write) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newTrapMM(t)
			m.mustMap(n, hostarch.ReadWrite, fixedAt(m.base), populated)
			m.mustMap(manyPieces, hostarch.ReadWrite, fixedAt(m.base+1<<30), populated)
			elsewhere := m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(m.base+4<<30))
			other := m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(m.base+5<<30))
			p := m.as.pauseAt(c.call, 1)
			op := spawn(t, c.name, func() error { return c.op(m) })
			p.wait()
			for name, f := range map[string]func() error{
				"a fault": func() error { return m.fault(elsewhere, hostarch.Write) },
				"write": func() error {
					_, err := m.CopyOut(m.ctx, other, []byte("x"), usermem.IOOpts{})
					return err
				},
				"madvise": func() error { return m.Decommit(elsewhere, pageSize) },
				"a file's truncation": func() error {
					m.Invalidate(rangeAt(elsewhere, pageSize), memmap.InvalidateOpts{})
					return nil
				},
			} {
				spawn(t, name, f).mustSucceed()
			}
			p.resume()
			op.mustSucceed()
			m.check()
		})
	}
}

// While the host takes permissions away, faults go on there, too, and get what is left.
func TestFaultsGoOnWhereMprotectIsAtWork(t *testing.T) {
	m := newTrapMM(t)
	ar := rangeAt(m.base, manyPieces)
	m.mustMap(manyPieces, hostarch.ReadWrite, fixedAt(ar.Start), populated)
	m.passDuring(rangeAt(ar.Start, pieceSize),
		func() error { return m.MProtect(ar.Start, manyPieces, hostarch.Read, false) },
		func() error {
			for _, at := range []hostarch.Addr{ar.Start, ar.End - pageSize} {
				if err := m.fault(at, hostarch.Read); err != nil {
					return err
				}
				if err := m.fault(at, hostarch.Write); err == nil {
					return fmt.Errorf("a write to %#x succeeds", at)
				}
			}
			return nil
		})
	for _, h := range m.as.mapped(ar) {
		if h.perms.Write {
			t.Errorf("the host allows writes to %v", h.AddrRange)
		}
	}
	m.check()
}

// Who protects many pmas keeps nobody waiting for all of them.
//
//	|w|r|w|r| ...
func TestMprotectOfManyPMAsLetsOthersGo(t *testing.T) {
	m := newTrapMM(t)
	const n = 2 * mostPMAs
	ar := rangeAt(m.base, n*pageSize)
	m.mustMap(n*pageSize, hostarch.ReadWrite, fixedAt(ar.Start), populated)
	for i := hostarch.Addr(1); i < n; i += 2 {
		if err := m.MProtect(ar.Start+i*pageSize, pageSize, hostarch.Read, false); err != nil {
			t.Fatal(err)
		}
	}
	elsewhere := m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(m.base+1<<30))
	h := m.callsOf(func() {
		m.passDuring(rangeAt(ar.Start, pageSize),
			func() error { return m.MProtect(ar.Start, n*pageSize, hostarch.NoAccess, false) },
			func() error {
				if m.pmas.Len() <= mostPMAs {
					return fmt.Errorf("%d pmas are left, so all have been protected at once", m.pmas.Len())
				}
				return m.fault(elsewhere, hostarch.Write)
			})
	})
	if n := m.as.mappedPages(ar); n != 0 {
		t.Errorf("%d pages are left after these calls:\n%s", n, callString(h.calls))
	}
	if got := m.pmas.Len(); got > 8 { // those that lie apart in the file
		t.Errorf("%d pmas are left, of %d that are alike", got, n)
	}
	for i := hostarch.Addr(1); i < n; i += 2 {
		if err := m.MProtect(ar.Start+i*pageSize, pageSize, hostarch.Read, false); err != nil {
			t.Fatal(err)
		}
	}
	times := 0
	testHookLetOthersRun = func() { times++ }
	defer func() { testHookLetOthersRun = nil }()
	if err := m.MProtect(ar.Start, n*pageSize, hostarch.ReadWrite, false); err != nil {
		t.Fatal(err)
	}
	if times != n/mostPMAs-1 {
		t.Errorf("others were let run %d times where nothing has to be unmapped, want once for each %d pmas but the last", times, mostPMAs)
	}
	m.check()
}

// A fault that is being mapped was right when it began. Who changes that has the host do so afterwards.
func TestWhoChangesPagesWaitsForFaultsUnderWay(t *testing.T) {
	const n = 4 * pageSize
	for i, c := range []struct {
		name string
		op   func(m trapMM) error
	}{
		{"munmap", func(m trapMM) error { return m.MUnmap(m.ctx, m.base, n) }},
		{"munmap of much", func(m trapMM) error { return m.MUnmap(m.ctx, m.base-manyPieces, 2*manyPieces) }},
		{"mmap", func(m trapMM) error {
			_, err := m.mmap(n, hostarch.NoAccess, fixedAt(m.base))
			return err
		}},
		{"mmap with pages", func(m trapMM) error {
			_, err := m.mmap(n, hostarch.Read, fixedAt(m.base), populated)
			return err
		}},
		{"mremap", func(m trapMM) error { return m.move(rangeAt(m.base, n), m.base+1<<30) }},
		{"mprotect to none", func(m trapMM) error { return m.MProtect(m.base, n, hostarch.NoAccess, false) }},
		{"mprotect to reading", func(m trapMM) error { return m.MProtect(m.base, n, hostarch.Read, false) }},
		{"mprotect of much", func(m trapMM) error { return m.MProtect(m.base, manyPieces+n, hostarch.Read, false) }},
		{"madvise", func(m trapMM) error { return m.Decommit(m.base, n) }},
		{"invalidation", func(m trapMM) error {
			m.Invalidate(rangeAt(m.base, n), memmap.InvalidateOpts{InvalidatePrivate: true})
			return nil
		}},
		{"fork", func(m trapMM) error {
			child, err := m.Fork(m.ctx)
			if err == nil {
				child.DecUsers(m.ctx)
			}
			return err
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newTrapMM(t)
			m.mustMap(n, hostarch.ReadWrite, fixedAt(m.base), populated)
			m.mustMap(manyPieces, hostarch.ReadWrite, fixedAt(m.base+n))
			m.mustFault(m.base+manyPieces, pageSize, hostarch.Write) // so that there is much to protect
			p, q := m.as.pauseAt("MapFile", 1), m.as.pauseAt("MapFile", 2)
			fault := spawn(t, "the fault", func() error { return m.fault(m.base, hostarch.Write) })
			p.wait()
			other := spawn(t, "the other fault", func() error { return m.fault(m.base+pageSize, hostarch.Write) })
			q.wait()
			op := spawn(t, c.name, func() error { return c.op(m) })
			op.mustBlock()
			if i%2 == 0 {
				p, q, fault, other = q, p, other, fault
			}
			p.resume()
			fault.mustSucceed()
			op.mustBlock()
			q.resume()
			other.mustSucceed()
			op.mustSucceed()
			m.check()
		})
	}
}

// Who populates may be no user himself. The address space is not released under him.
func TestLastUserWaitsForWhatIsUnderWay(t *testing.T) {
	m := newTrapMM(t)
	p := m.as.pauseAt("MapFile", 1)
	populate := spawn(t, "mmap", func() error {
		_, err := m.mmap(manyPieces, hostarch.ReadWrite, fixedAt(m.base), committedNow)
		return err
	})
	p.wait()
	exit := spawn(t, "exit", func() error { m.exit(); return nil })
	exit.mustBlock()
	p.resume()
	populate.mustSucceed()
	exit.mustSucceed()
}

// The same for an operation that holds no lock while the host unmaps.
func TestLastUserWaitsForOperations(t *testing.T) {
	m := newTrapMM(t)
	m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(m.base), populated)
	p := m.as.pauseAt("Unmap", 1)
	unmap := spawn(t, "munmap", func() error { return m.MUnmap(m.ctx, m.base, pageSize) })
	p.wait()
	exit := spawn(t, "exit", func() error { m.exit(); return nil })
	exit.mustBlock()
	p.resume()
	unmap.mustSucceed()
	exit.mustSucceed()
}

// A copy is mapped over what another thread's fault is having mapped, not the other way round.
func TestCopyOnWriteWaitsForFaultsUnderWay(t *testing.T) {
	m := newTrapMM(t)
	m.mustMap(4*pageSize, hostarch.ReadWrite, fixedAt(m.base), populated)
	m.mustStore(m.base, "old")
	m.fork()
	p := m.as.pauseAt("MapFile", 1)
	read := spawn(t, "the reader", func() error { return m.fault(m.base, hostarch.Read) })
	p.wait()
	write := spawn(t, "the writer", func() error { return m.fault(m.base, hostarch.Write) })
	write.mustBlock()
	p.resume()
	read.mustSucceed()
	write.mustSucceed()
	if err := m.checkHost(); err != nil {
		t.Error(err)
	}
	if !m.storeWithoutFault(m.base, "new") {
		t.Error("the writer faults again")
	}
	m.check()
}

// A file's pages that an operation is having mapped are not copied by who writes next to them, though they are of one
// mapping: the host would be told in the wrong order.
//
//	|p|q|    p: being mapped anew  q: written to
func TestWriteNextToPagesBeingMappedLeavesThemAlone(t *testing.T) {
	m := newTrapMM(t)
	f := newTestMappable(t, m.mf, 2*pageSize)
	m.mustMap(2*pageSize, hostarch.ReadWrite, fixedAt(m.base), privateFile(f, 0), populated)
	p := m.as.pauseAt("MapFile", 1)
	replace := spawn(t, "replacement", func() error {
		_, err := m.mmap(pageSize, hostarch.ReadWrite, fixedAt(m.base), privateFile(f, 0), populated)
		return err
	})
	p.wait()
	spawn(t, "the writer", func() error { return m.fault(m.base+pageSize, hostarch.Write) }).mustSucceed()
	m.activeMu.RLock()
	if e, ok := m.pmas.Find(uint64(m.base)); !ok || e.Value.private {
		t.Errorf("the replacement's pages are there: %t, copied: %t", ok, ok && e.Value.private)
	}
	m.activeMu.RUnlock()
	p.resume()
	replace.mustSucceed()
	m.check()
}

// Who invalidates pages of a mapping that is being mapped waits for that.
func TestInvalidateOfPagesBeingMappedWaitsForTheHost(t *testing.T) {
	m := newTrapMM(t)
	f := newTestMappable(t, m.mf, pageSize)
	p := m.as.pauseAt("MapFile", 1)
	mmap := spawn(t, "mmap", func() error {
		_, err := m.mmap(pageSize, hostarch.ReadWrite, fixedAt(m.base), sharedFile(f, 0), populated)
		return err
	})
	p.wait()
	truncate := spawn(t, "truncate", func() error { f.set.truncate(0); return nil })
	truncate.mustBlock()
	p.resume()
	mmap.mustSucceed()
	truncate.mustSucceed()
	m.check()
	m.mustGetSIGBUS(m.base)
}

// Who invalidates pages that are being mapped with other permissions, or in another place, waits for that, too, and nothing is left of it.
func TestInvalidateOfPagesBeingMappedAnewWaitsForTheHost(t *testing.T) {
	for _, c := range []struct {
		name string
		at   uint64 // where the pages are in the end, beyond base
		op   func(m trapMM) error
	}{
		{"mprotect", 0, func(m trapMM) error { return m.MProtect(m.base, pageSize, hostarch.Read, false) }},
		{"mremap", 1 << 30, func(m trapMM) error { return m.move(rangeAt(m.base, pageSize), m.base+1<<30) }},
	} {
		for _, fails := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, fails=%v", c.name, fails), func(t *testing.T) {
				m := newTrapMM(t)
				m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(m.base), populated)
				there := rangeAt(m.base+hostarch.Addr(c.at), pageSize)
				p := m.as.pauseAt("MapFile", 1)
				if fails {
					m.as.fail("MapFile", 1, linuxerr.ENOMEM)
				}
				op := spawn(t, c.name, func() error { return c.op(m) })
				p.wait()
				invalidate := spawn(t, "invalidation", func() error {
					m.Invalidate(there, memmap.InvalidateOpts{InvalidatePrivate: true})
					return nil
				})
				invalidate.mustBlock()
				p.resume()
				op.mustSucceed()
				invalidate.mustSucceed()
				if n := m.as.mappedPages(there); n != 0 {
					t.Errorf("the host has %d pages mapped that were invalidated", n)
				}
				m.check()
			})
		}
	}
}

// Many fault while others change what they fault on. Whatever comes in the middle of what, the host has nothing in the end that is not so.
func TestFaultsAndChangesRace(t *testing.T) {
	const n = 8 * pageSize
	m := newTestMM(t)
	m.as.lax = true
	m.as.on("MapFile", 0, nil, func(any) error { runtime.Gosched(); return nil })
	area := rangeAt(m.base, n)
	f := newTestMappable(t, m.mf, n)
	changes := []func(m *testMM, ar hostarch.AddrRange) error{
		func(m *testMM, ar hostarch.AddrRange) error { return m.MUnmap(m.ctx, ar.Start, uint64(ar.Length())) },
		func(m *testMM, ar hostarch.AddrRange) error {
			_, err := m.mmap(uint64(ar.Length()), hostarch.ReadWrite, fixedAt(ar.Start), populated)
			return err
		},
		func(m *testMM, ar hostarch.AddrRange) error {
			_, err := m.mmap(uint64(ar.Length()), hostarch.ReadWrite, fixedAt(ar.Start), privateFile(f, 0))
			return err
		},
		func(m *testMM, ar hostarch.AddrRange) error {
			m.MProtect(ar.Start, uint64(ar.Length()), hostarch.Read, false) // there may be holes
			return nil
		},
		func(m *testMM, ar hostarch.AddrRange) error {
			m.Decommit(ar.Start, uint64(ar.Length()))
			return nil
		},
		func(m *testMM, ar hostarch.AddrRange) error {
			m.Invalidate(ar, memmap.InvalidateOpts{InvalidatePrivate: true})
			return nil
		},
		func(m *testMM, ar hostarch.AddrRange) error {
			child, err := m.Fork(m.ctx)
			if err == nil {
				child.DecUsers(m.ctx)
			}
			return err
		},
	}
	seed := testSeed(t)
	for round := range 100 {
		m.mustMap(n, hostarch.ReadWrite, fixedAt(m.base))
		var tasks []*task
		for i := range 6 {
			rnd := rand.New(rand.NewSource(seed + int64(round*6+i)))
			tasks = append(tasks, spawn(t, fmt.Sprintf("thread %d", i), func() error {
				for range 20 {
					page := area.Start + hostarch.Addr(rnd.Intn(n/pageSize))*pageSize
					ar := rangeAt(page, uint64(min(area.End-page, hostarch.Addr(1+rnd.Intn(3))*pageSize)))
					if i >= 2 {
						m.fault(page, hostarch.AccessType{Read: true, Write: rnd.Intn(2) == 0}) // there may be nothing
						continue
					}
					if err := changes[rnd.Intn(len(changes))](m, ar); err != nil {
						return err
					}
				}
				return nil
			}))
		}
		for _, k := range tasks {
			k.mustSucceed()
		}
		m.check()
	}
}
