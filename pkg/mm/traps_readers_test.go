// Readers of the tree, faults and I/O wait for no operation, unless it has frozen what
// they want; and what readers see belongs together.

package mm

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
	"gvisor.dev/gvisor/pkg/usermem"
)

// smaps pairs each mapping with its own pages, whatever happens before it counts them.
func TestSmapsRssNotAboveSize(t *testing.T) {
	// The replacement is published, with pages, after smaps has begun with the entry.
	// To be in time, it queues up before it.
	t.Run("replaced", func(t *testing.T) {
		m := newTrapMM(t)
		addr := m.mustMap(4*pageSize, hostarch.NoAccess, fixedAt(m.base))
		var text string
		var replace, smaps *task
		m.whileLocked(func() {
			replace = spawn(t, "mmap", func() error {
				_, err := m.mmap(2*pageSize, hostarch.ReadWrite, fixedAt(addr), populated)
				return err
			})
			replace.mustBlock()
			smaps = spawn(t, "smaps", func() error { text = m.smaps(); return nil })
			smaps.mustBlock()
		})
		replace.mustSucceed()
		smaps.mustSucceed()
		mustPairSmaps(t, text)
		m.check()
	})

	// The second of two mappings becomes one with the first when that has been shown.
	t.Run("merged", func(t *testing.T) {
		m := newTrapMM(t)
		m.mustMap(4*pageSize, hostarch.ReadWrite, fixedAt(m.base), populated)
		second := m.base + 3*pageSize
		if err := m.MProtect(second, pageSize, hostarch.Read, false); err != nil {
			t.Fatal(err)
		}
		entries := 0
		testHookEntered = func() {
			if entries++; entries == 2 {
				if err := m.MProtect(second, pageSize, hostarch.ReadWrite, false); err != nil {
					t.Error(err)
				}
			}
		}
		t.Cleanup(func() { testHookEntered = nil })
		mustPairSmaps(t, m.smaps())
		m.check()
	})
}

// mustPairSmaps fails the test if an entry of /proc/[pid]/smaps has more pages than it
// has room for, or pages that nobody can access: no mapping of these tests has.
func mustPairSmaps(t *testing.T, text string) {
	t.Helper()
	var head string
	var size, rss int
	for _, line := range strings.Split(text, "\n") {
		switch fields := strings.Fields(line); {
		case len(fields) < 2:
		case strings.Contains(fields[0], "-"):
			head = line
		case fields[0] == "Size:":
			fmt.Sscan(fields[1], &size)
		case fields[0] == "Rss:":
			fmt.Sscan(fields[1], &rss)
			if rss > size || rss != 0 && strings.Contains(head, "---p") {
				t.Errorf("Size is %d kB and Rss %d kB of %s in\n%s", size, rss, head, text)
			}
		}
	}
	if head == "" {
		t.Errorf("smaps has no entries:\n%s", text)
	}
}

// lockFreeReaders are the readers that take no lock of the MemoryManager at all. The
// memory is a shared file's page, and what is done to it does not matter.
var lockFreeReaders = map[string]func(m trapMM, file hostarch.Addr) error{
	"maps":                   func(m trapMM, _ hostarch.Addr) error { m.maps(); return nil },
	"VirtualMemorySize":      func(m trapMM, _ hostarch.Addr) error { m.VirtualMemorySize(); return nil },
	"VirtualMemorySizeRange": func(m trapMM, _ hostarch.Addr) error { m.VirtualMemorySizeRange(everywhere); return nil },
	"VirtualDataSize":        func(m trapMM, _ hostarch.Addr) error { m.VirtualDataSize(); return nil },
	"ResidentSetSize":        func(m trapMM, _ hostarch.Addr) error { m.ResidentSetSize(); return nil },
	"MaxResidentSetSize":     func(m trapMM, _ hostarch.Addr) error { m.MaxResidentSetSize(); return nil },
	"FindVMARange":           func(m trapMM, a hostarch.Addr) error { _, err := m.FindVMARange(a); return err },
	"FindVMAByName":          func(m trapMM, _ hostarch.Addr) error { m.FindVMAByName(everywhere, "x"); return nil },
	"NumaPolicy":             func(m trapMM, a hostarch.Addr) error { _, _, err := m.NumaPolicy(a); return err },
	"InvalidateUnsavable":    func(m trapMM, _ hostarch.Addr) error { return m.InvalidateUnsavable(m.ctx) },
	"GetSharedFutexKey": func(m trapMM, a hostarch.Addr) error {
		key, err := m.GetSharedFutexKey(m.ctx, a)
		if err == nil {
			key.MappingIdentity.DecRef(m.ctx)
		}
		return err
	},
	"MSync": func(m trapMM, a hostarch.Addr) error {
		return m.MSync(m.ctx, a, pageSize, MSyncOpts{Sync: true})
	},
}

// Those who change the tree hold mappingMu as long as it takes. Everybody else gets by
// without.
func TestOnlyWritersTakeMappingMu(t *testing.T) {
	m := newTrapMM(t)
	f := newTestMappable(t, m.mf, pageSize)
	m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(m.base), sharedFile(f, 0))
	others := map[string]func(m trapMM, a hostarch.Addr) error{
		"smaps": func(m trapMM, _ hostarch.Addr) error { m.smaps(); return nil },
		"fault": func(m trapMM, a hostarch.Addr) error { return m.fault(a, hostarch.Write) },
		"load":  func(m trapMM, a hostarch.Addr) error { _, err := m.load(a, 8); return err },
		"CopyIn": func(m trapMM, a hostarch.Addr) error {
			_, err := m.CopyIn(m.ctx, a, make([]byte, 8), usermem.IOOpts{})
			return err
		},
		"CopyOut": func(m trapMM, a hostarch.Addr) error {
			_, err := m.CopyOut(m.ctx, a, make([]byte, 8), usermem.IOOpts{})
			return err
		},
		"ZeroOut": func(m trapMM, a hostarch.Addr) error {
			_, err := m.ZeroOut(m.ctx, a, 8, usermem.IOOpts{})
			return err
		},
		"SwapUint32": func(m trapMM, a hostarch.Addr) error {
			_, err := m.SwapUint32(m.ctx, a, 8, usermem.IOOpts{})
			return err
		},
		"EnsurePMAsExist": func(m trapMM, a hostarch.Addr) error {
			_, err := m.EnsurePMAsExist(m.ctx, a, pageSize, usermem.IOOpts{})
			return err
		},
		"Pin": func(m trapMM, a hostarch.Addr) error {
			prs, err := m.Pin(m.ctx, rangeAt(a, pageSize), hostarch.Read, false)
			Unpin(prs)
			return err
		},
		"Decommit": func(m trapMM, a hostarch.Addr) error { return m.Decommit(a, pageSize) },
		"Invalidate": func(m trapMM, a hostarch.Addr) error {
			m.Invalidate(rangeAt(a, pageSize), memmap.InvalidateOpts{InvalidatePrivate: true})
			return nil
		},
	}
	m.mappingMu.Lock()
	for _, tasks := range []map[string]func(trapMM, hostarch.Addr) error{lockFreeReaders, others} {
		for name, f := range tasks {
			spawn(t, name, func() error { return f(m, m.base) }).mustSucceed()
		}
	}
	m.mappingMu.Unlock()
	m.check()
}

// stopAtCall makes whoever makes the n-th call from now on to the host, or to f, stop.
func (m trapMM) stopAtCall(f *testMappable, n int64) *pause {
	p := &pause{t: m.t, what: fmt.Sprint("call ", n), reached: make(chan struct{}), go_: make(chan struct{})}
	var calls atomic.Int64
	run := func(arg any) error {
		if calls.Add(1) == n {
			p.hold(arg)
		}
		return nil
	}
	for _, op := range []string{"MapFile", "Unmap"} {
		m.as.on(op, 0, nil, run)
	}
	for _, op := range []string{"AddMapping", "RemoveMapping", "CopyMapping", "Translate"} {
		f.on(op, 0, nil, run)
	}
	m.w.atEnd(p.resume)
	return p
}

// Whatever an operation is in the middle of, an application that looks at
// /proc/self/maps, or waits for a shared futex elsewhere, goes on.
func TestReadersFinishWhileAnOperationIsStopped(t *testing.T) {
	for name, op := range map[string]func(m trapMM, f *testMappable, a hostarch.Addr) error{
		"munmap": func(m trapMM, _ *testMappable, a hostarch.Addr) error { return m.MUnmap(m.ctx, a, manyPieces) },
		"mprotect": func(m trapMM, _ *testMappable, a hostarch.Addr) error {
			return m.MProtect(a, manyPieces, hostarch.Read, false)
		},
		"MADV_DONTNEED": func(m trapMM, _ *testMappable, a hostarch.Addr) error { return m.Decommit(a, manyPieces) },
		"mremap": func(m trapMM, _ *testMappable, a hostarch.Addr) error {
			return m.move(rangeAt(a+pageSize, manyPieces-pageSize), m.base+1<<34)
		},
		"mmap over it": func(m trapMM, f *testMappable, a hostarch.Addr) error {
			_, err := m.mmap(manyPieces, hostarch.ReadWrite, fixedAt(a), sharedFile(f, 0), populated)
			return err
		},
		"mmap over a page of it": func(m trapMM, f *testMappable, a hostarch.Addr) error {
			_, err := m.mmap(pageSize, hostarch.ReadWrite, fixedAt(a), sharedFile(f, 0), populated)
			return err
		},
		"mmap that must populate": func(m trapMM, f *testMappable, a hostarch.Addr) error {
			_, err := m.mmap(manyPieces, hostarch.ReadWrite, fixedAt(a), privateFile(f, 0), populated, required)
			return err
		},
		"fork": func(m trapMM, _ *testMappable, a hostarch.Addr) error {
			child, err := m.Fork(m.ctx)
			if err == nil {
				child.DecUsers(m.ctx)
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			stops := int64(0)
			for more := true; more; {
				stops++
				// The test of one stop has a world of its own, which ends with it.
				t.Run(fmt.Sprint(stops), func(t *testing.T) {
					m := newTrapMM(t)
					m.as.lax = true
					f, elsewhere := newTestMappable(t, m.mf, manyPieces), newTestMappable(t, m.mf, pageSize)
					a := m.mustMap(manyPieces, hostarch.ReadWrite, fixedAt(m.base), sharedFile(f, 0), populated)
					m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(a), populated)
					quiet := m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(m.base+1<<33), sharedFile(elsewhere, 0))
					p := m.stopAtCall(f, stops)
					k := spawn(t, name, func() error { return op(m, f, a) })
					select {
					case <-p.reached:
					case <-k.done:
						more = false
						k.mustSucceed()
						return
					}
					for reader, read := range lockFreeReaders {
						if reader == "InvalidateUnsavable" {
							continue // calls f
						}
						spawn(t, reader, func() error { return read(m, quiet) }).mustSucceed()
					}
					p.resume()
					k.mustSucceed()
					m.check()
				})
				if t.Failed() {
					return
				}
			}
			if stops < 3 {
				t.Errorf("the test is wrong: %s was stopped %d times only", name, stops-1)
			}
		})
	}
}

// A thread waits where its page is being replaced, and nowhere else; and not at all if
// there is nothing to wait for.
//
//	| anonymous |xxx a file's, being replaced xxx| anonymous |
func TestFaultInFrozenRangeWaitsAndNextToItDoesNot(t *testing.T) {
	for name, n := range map[string]uint64{"register": 2 * pageSize, "host": manyPieces} {
		t.Run(name, func(t *testing.T) {
			m := newTrapMM(t)
			f, g := newTestMappable(t, m.mf, n), newTestMappable(t, m.mf, n)
			f.set.write(0, []byte("old"))
			left, mid := m.base, m.base+pageSize
			right := mid + hostarch.Addr(n)
			m.mustMap(n+2*pageSize, hostarch.ReadWrite, fixedAt(left))
			m.mustMap(n, hostarch.ReadWrite, fixedAt(mid), sharedFile(f, 0), populated)
			p := f.pauseAt("RemoveMapping", 1)
			replace := spawn(t, "replacement", func() error {
				_, err := m.mmap(n, hostarch.Read, fixedAt(mid), sharedFile(g, 0))
				return err
			})
			p.wait()

			var waiting []*task
			wait := func(name string, f func() error) {
				k := spawn(t, name, f)
				k.mustBlock()
				waiting = append(waiting, k)
			}
			wait("load", func() error { return m.expect(mid, zeroes(3)) })
			wait("fault", func() error { return m.fault(right-1, hostarch.Read) })
			wait("CopyIn", func() error {
				got := make([]byte, 3)
				if _, err := m.CopyIn(m.ctx, mid, got, usermem.IOOpts{}); err != nil || string(got) != zeroes(3) {
					return fmt.Errorf("%q, %v", got, err)
				}
				return nil
			})
			wait("CopyIn from below", func() error {
				_, err := m.CopyIn(m.ctx, left, make([]byte, 2*pageSize), usermem.IOOpts{})
				return err
			})
			wait("Pin", func() error {
				prs, err := m.Pin(m.ctx, rangeAt(mid, pageSize), hostarch.Read, false)
				Unpin(prs)
				return err
			})
			wait("Decommit", func() error { return m.Decommit(mid, pageSize) })

			for _, a := range []hostarch.Addr{left, right} {
				m.mustStore(a, "next to it")
			}
			if err := m.fault(mid, hostarch.Write); !linuxerr.Equals(linuxerr.EPERM, err) {
				t.Errorf("a fault without permission says %v", err)
			}
			if _, err := m.CopyOut(m.ctx, mid, []byte("x"), usermem.IOOpts{}); !linuxerr.Equals(linuxerr.EFAULT, err) {
				t.Errorf("CopyOut without permission says %v", err)
			}
			if n := m.residentBytes(rangeAt(mid, n)); n != 0 {
				t.Errorf("%#x bytes of pages are in the frozen range", n)
			}
			p.resume()
			replace.mustSucceed()
			for _, k := range waiting {
				k.mustSucceed()
			}
			for _, a := range []hostarch.Addr{left, right} {
				m.mustLoad(a, "next to it")
			}
			m.check()
		})
	}
}

// Where nothing is mapped any more, there is nothing to wait for either.
func TestFaultWithoutVMAFailsThoughFrozen(t *testing.T) {
	m := newTrapMM(t)
	f := newTestMappable(t, m.mf, pageSize)
	m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(m.base), sharedFile(f, 0), populated)
	p := f.pauseAt("RemoveMapping", 1)
	unmap := spawn(t, "munmap", func() error { return m.MUnmap(m.ctx, m.base, pageSize) })
	p.wait()
	for name, try := range map[string]func() error{
		"fault": func() error { return m.fault(m.base, hostarch.Read) },
		"CopyIn": func() error {
			_, err := m.CopyIn(m.ctx, m.base, make([]byte, 1), usermem.IOOpts{})
			return err
		},
		"Pin": func() error { _, err := m.Pin(m.ctx, rangeAt(m.base, pageSize), hostarch.Read, false); return err },
	} {
		if err := spawn(t, name, try).wait(); !linuxerr.Equals(linuxerr.EFAULT, err) {
			t.Errorf("%s in a hole says %v", name, err)
		}
	}
	p.resume()
	unmap.mustSucceed()
	m.check()
}
