// Who is told that memory is gone can rely on it: whoever comes second waits for
// the host's part of what the first one does.

package mm

import (
	"fmt"
	"testing"

	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
	"gvisor.dev/gvisor/pkg/usermem"
)

// The hole is there for all to see while the old pages are still being unmapped. Who
// maps something into it, and gets it populated, must not have that unmapped with them.
//
//	old | piece 0 | piece 1 | piece 2 | piece 3 |
//	new                                  |-|
func TestMmapIntoJustUnmappedRangeKeepsWrites(t *testing.T) {
	m := newTrapMM(t)
	ar := rangeAt(m.base, manyPieces)
	m.mustMap(manyPieces, hostarch.ReadWrite, fixedAt(ar.Start), populated)
	addr := ar.End - pieceSize/2
	m.mustStore(addr, "old")
	i := m.betweenPieces(ar,
		func() error { return m.MUnmap(m.ctx, ar.Start, manyPieces) },
		func() error {
			_, err := m.mmap(pageSize, hostarch.ReadWrite, noReplaceAt(addr), populated)
			if err == nil && !m.storeWithoutFault(addr, "new") {
				err = fmt.Errorf("the new mapping was populated, and is not mapped")
			}
			return err
		})
	i.other.mustBlock()
	i.finish()
	if got, ok := m.loadWithoutFault(addr, 3); !ok || got != "new" {
		t.Errorf("at %#x is %q (mapped: %t)", addr, got, ok)
	}
	m.check()
}

func TestSecondMunmapWaitsForHost(t *testing.T) {
	m := newTrapMM(t)
	ar := rangeAt(m.base, manyPieces)
	m.mustMap(manyPieces, hostarch.ReadWrite, fixedAt(ar.Start), populated)
	unmap := func() error {
		if err := m.MUnmap(m.ctx, ar.Start, manyPieces); err != nil {
			return err
		}
		return m.mustHaveNothing(ar)
	}
	i := m.betweenPieces(ar, unmap, unmap)
	i.other.mustBlock()
	i.finish()
	m.check()
}

// Both of two threads that make memory read-only may rely on it when mprotect
// returns, though the second one finds nothing to change.
func TestSecondMprotectWaitsForHost(t *testing.T) {
	t.Run("of the first", func(t *testing.T) {
		m := newTrapMM(t)
		ar := rangeAt(m.base, manyPieces)
		m.mustMap(manyPieces, hostarch.ReadWrite, fixedAt(ar.Start), populated)
		protect := func() error {
			if err := m.MProtect(ar.Start, manyPieces, hostarch.Read, false); err != nil {
				return err
			}
			for _, h := range m.as.mapped(ar) {
				if h.perms.Write {
					return fmt.Errorf("the host allows writes to %v", h.AddrRange)
				}
			}
			return nil
		}
		i := m.betweenPieces(ar, protect, protect)
		i.other.mustBlock()
		i.finish()
		m.check()
	})
	t.Run("of munmap", func(t *testing.T) {
		m := newTrapMM(t)
		ar := rangeAt(m.base, manyPieces)
		m.mustMap(manyPieces, hostarch.ReadWrite, fixedAt(ar.Start), populated)
		i := m.betweenPieces(ar,
			func() error { return m.MUnmap(m.ctx, ar.Start, manyPieces) },
			func() error {
				if err := m.MProtect(ar.Start, manyPieces, hostarch.Read, false); !linuxerr.Equals(linuxerr.ENOMEM, err) {
					return fmt.Errorf("mprotect of a hole: %v", err)
				}
				return m.mustHaveNothing(ar)
			})
		i.other.mustBlock()
		i.finish()
		m.check()
	})
}

// When a file has invalidated a page, it gives the page to somebody else. If the
// mapping is on its way out already, it has to wait for that, for the host's part
// only: it holds its own locks, which RemoveMapping takes.
func TestInvalidateReturnsOnlyWhenUnreachable(t *testing.T) {
	for name, op := range map[string]func(m trapMM, ar hostarch.AddrRange) error{
		"munmap": func(m trapMM, ar hostarch.AddrRange) error {
			return m.MUnmap(m.ctx, ar.Start, manyPieces)
		},
		"mmap": func(m trapMM, ar hostarch.AddrRange) error {
			_, err := m.mmap(manyPieces, hostarch.ReadWrite, fixedAt(ar.Start))
			return err
		},
		"mmap that must populate": func(m trapMM, ar hostarch.AddrRange) error {
			_, err := m.mmap(manyPieces, hostarch.ReadWrite, fixedAt(ar.Start), populated, required)
			return err
		},
		"mremap": func(m trapMM, ar hostarch.AddrRange) error {
			_, err := m.MRemap(m.ctx, ar.Start, manyPieces, manyPieces, MRemapOpts{Move: MRemapMustMove, NewAddr: ar.End})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newTrapMM(t)
			ar := rangeAt(m.base, manyPieces)
			f := newTestMappable(t, m.mf, manyPieces)
			m.mustMap(manyPieces, hostarch.ReadWrite, fixedAt(ar.Start), sharedFile(f, 0), populated)
			old := f.set.find(manyPieces-pageSize, 1)[0]
			registered := f.pauseAt("RemoveMapping", 1)
			i := m.betweenPieces(ar,
				func() error { return op(m, ar) },
				func() error {
					f.set.replace(memmap.MappableRange{Start: manyPieces - pageSize, End: manyPieces})
					for _, h := range m.as.mapped(everywhere) {
						if fr := h.fileRange(h.AddrRange); fr.Start < old.End && old.Start < fr.End {
							return fmt.Errorf("the host still has the page mapped, in %v", h.AddrRange)
						}
					}
					return nil
				})
			i.other.mustBlock()
			i.stopped.resume()
			i.other.mustSucceed() // before the registration is gone
			registered.wait()
			registered.resume()
			i.finish()
			m.check()
		})
	}
}

// A fault that looked the vma up before it was replaced must not put pages of the old
// mapping under the new one.
func TestNoStalePMAUnderNewVMA(t *testing.T) {
	m := newTrapMM(t)
	f := newTestMappable(t, m.mf, pageSize)
	f.set.write(0, []byte("of the file"))
	addr := m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(m.base))
	m.Decommit(addr, pageSize) // mmap had populated it

	// Queue up for activeMu: somebody has it, the replacement wants it, and
	// so does a fault that comes before the replacement is published.
	var replace, fault *task
	m.whileLocked(func() {
		replace = spawn(t, "replacement", func() error {
			_, err := m.mmap(pageSize, hostarch.ReadWrite, fixedAt(addr), privateFile(f, 0))
			return err
		})
		replace.mustBlock()
		fault = spawn(t, "fault", func() error { return m.fault(addr, hostarch.Read) })
		fault.mustBlock()
	})
	replace.mustSucceed()
	fault.mustSucceed()
	m.check()
	m.mustLoad(addr, "of the file")
}

// Between them, the pma and the host's mapping decide where a write goes. A stale
// one, in either of the two, has parent and child write to one page, or read what
// was before.
func TestForkCopyOnWriteNoStaleWrite(t *testing.T) {
	m := newTrapMM(t)
	addr := m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(m.base))
	// Far enough away not to be copied together with it.
	other := m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(m.base+1<<30))
	m.mustStore(addr, "before")
	m.mustStore(other, "before")
	child := trapMM{m.fork()}
	for _, x := range []trapMM{m, child} {
		for _, a := range []hostarch.Addr{addr, other} {
			if x.storeWithoutFault(a, "oops!!") {
				t.Fatalf("%s writes to the shared page at %#x", x.name, a)
			}
		}
	}
	m.mustStore(addr, "parent")
	child.mustLoad(addr, "before")
	child.mustStore(addr, "child!")
	m.mustLoad(addr, "parent")

	// The page is copied because the sentry writes to it; a thread that had it mapped
	// for reading must not go on reading the old one.
	m.mustLoad(other, "before")
	if _, err := m.CopyOut(m.ctx, other, []byte("sentry"), usermem.IOOpts{}); err != nil {
		t.Fatal(err)
	}
	if got, ok := m.loadWithoutFault(other, 6); ok && got != "sentry" {
		t.Fatalf("a thread still reads %q", got)
	}
	m.mustLoad(other, "sentry")
	child.mustLoad(other, "before")
	m.check()
	child.check()
}

func TestDontneedThenReadSeesZero(t *testing.T) {
	for name, n := range map[string]uint64{"small": pageSize, "in pieces": manyPieces} {
		t.Run(name, func(t *testing.T) {
			m := newTrapMM(t)
			addr := m.mustMap(n, hostarch.ReadWrite, fixedAt(m.base), populated)
			last := addr + hostarch.Addr(n) - pageSize
			for _, a := range []hostarch.Addr{addr, last} {
				m.mustStore(a, "secret")
			}
			if err := m.Decommit(addr, n); err != nil {
				t.Fatal(err)
			}
			for _, a := range []hostarch.Addr{addr, last} {
				if got, ok := m.loadWithoutFault(a, 6); ok && got != zeroes(6) {
					t.Errorf("a thread still reads %q at %#x", got, a)
				}
				m.mustLoad(a, zeroes(6))
			}
			m.check()
		})
	}
}

// Claim: while the host unmaps what is given up, or invalidated, who copies elsewhere does not wait. Who copies from there or faults does: the host still has
// what was there.
func TestCopiesElsewhereDoNotWaitForUnmapping(t *testing.T) {
	for name, do := range map[string]func(m trapMM, f *testMappable) error{
		"madvise": func(m trapMM, _ *testMappable) error { return m.Decommit(m.base, pageSize) },
		"invalidation": func(m trapMM, f *testMappable) error {
			f.set.invalidate(memmap.MappableRange{End: pageSize}, memmap.InvalidateOpts{})
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newTrapMM(t)
			f := newTestMappable(t, m.mf, pageSize)
			m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(m.base), sharedFile(f, 0), populated)
			elsewhere := m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(m.base+1<<30), committedNow)
			copyFrom := func(addr hostarch.Addr) func() error {
				return func() error {
					_, err := m.CopyIn(m.ctx, addr, make([]byte, 8), usermem.IOOpts{})
					return err
				}
			}
			if err := copyFrom(elsewhere)(); err != nil { // the first time, the sentry has to map the page
				t.Fatal(err)
			}
			p := m.as.pauseAt("Unmap", 1)
			op := spawn(t, name, func() error { return do(m, f) })
			p.wait()
			spawn(t, "a copy from elsewhere", copyFrom(elsewhere)).mustSucceed()
			waiting := []*task{
				spawn(t, "a copy from there", copyFrom(m.base)),
				spawn(t, "a fault there", func() error { return m.fault(m.base, hostarch.Write) }),
			}
			for _, k := range waiting {
				k.mustBlock()
			}
			p.resume()
			op.mustSucceed()
			for _, k := range waiting {
				k.mustSucceed()
			}
			m.check()
		})
	}
}

// The translations on both sides of a private copy are unmapped, and the copy stays.
//
//	|translation|copy|translation|
func TestInvalidateUnmapsAroundPrivateCopies(t *testing.T) {
	m := newTrapMM(t)
	f := newTestMappable(t, m.mf, 3*pageSize)
	// What can be executed is copied page by page.
	m.mustMap(3*pageSize, hostarch.AnyAccess, fixedAt(m.base), privateFile(f, 0), populated)
	m.mustStore(m.base+pageSize, "copy")
	m.mustLoad(m.base, zeroes(4))
	m.mustLoad(m.base+2*pageSize, zeroes(4))
	f.set.replace(memmap.MappableRange{End: 3 * pageSize})
	f.set.write(0, []byte("new0"))
	f.set.write(2*pageSize, []byte("new2"))
	for i, want := range []string{"new0", "copy", "new2"} {
		a := m.base + hostarch.Addr(i)*pageSize
		if got, ok := m.loadWithoutFault(a, 4); ok && got != want {
			t.Errorf("a thread still reads %q in page %d; want %q", got, i, want)
		}
		m.mustLoad(a, want)
	}
	m.check()
}
