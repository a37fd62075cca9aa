// Pages move with their mapping, and nobody meets them at both places, or at none.

package mm

import (
	"fmt"
	"sync/atomic"
	"testing"

	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
	"gvisor.dev/gvisor/pkg/usermem"
)

// move is mremap(MREMAP_FIXED) without a change of size.
func (m trapMM) move(src hostarch.AddrRange, dst hostarch.Addr) error {
	_, err := m.MRemap(m.ctx, src.Start, uint64(src.Length()), uint64(src.Length()), MRemapOpts{Move: MRemapMustMove, NewAddr: dst})
	return err
}

func TestMremapMoveLeavesNoStaleHostMapping(t *testing.T) {
	for name, n := range map[string]uint64{"small": 2 * pageSize, "in pieces": manyPieces} {
		t.Run(name, func(t *testing.T) {
			m := newTrapMM(t)
			f := newTestMappable(t, m.mf, n+2*pageSize)
			// A page on either side stays where it is.
			whole := m.mustMap(n+2*pageSize, hostarch.ReadWrite, fixedAt(m.base), sharedFile(f, 0), populated)
			src := rangeAt(whole+pageSize, n)
			dst := m.base + 1<<30
			last := hostarch.Addr(n) - pageSize
			m.mustStore(src.Start, "first")
			m.mustStore(src.Start+last, "last")
			for _, a := range []hostarch.Addr{whole, src.End} {
				m.mustStore(a, "stays")
			}
			p := f.pauseAt("RemoveMapping", 1)
			move := spawn(t, "mremap", func() error { return m.move(src, dst) })
			p.wait()
			// The file is told once nobody can reach its pages at the source.
			if err := m.mustHaveNothing(src); err != nil {
				t.Error(err)
			}
			p.resume()
			move.mustSucceed()
			m.check()
			for _, a := range []hostarch.Addr{src.Start, src.Start + last} {
				if m.storeWithoutFault(a, "stale") {
					t.Errorf("a thread still writes at %#x", a)
				}
				if err := m.store(a, []byte("stale")); !linuxerr.Equals(linuxerr.EFAULT, err) {
					t.Errorf("writing at %#x: %v", a, err)
				}
			}
			m.mustLoad(dst, "first")
			m.mustLoad(dst+last, "last")
			for _, a := range []hostarch.Addr{whole, src.End} {
				m.mustLoad(a, "stays")
			}

			// Nor is anything left under what comes next.
			m.mustMap(n, hostarch.ReadWrite, noReplaceAt(src.Start))
			m.mustLoad(src.Start, zeroes(5))
			m.check()
		})
	}
}

func TestInvalidateDuringMremap(t *testing.T) {
	// The Mappable knows the destination, and the pages are still at the source:
	// invalidating the one means the other.
	//
	//	src |pppp|  the pages and what the host has mapped
	//	dst |    |  what an invalidation names
	t.Run("before the pages move", func(t *testing.T) {
		m := newTrapMM(t)
		f := newTestMappable(t, m.mf, 4*pageSize)
		src := rangeAt(m.mustMap(4*pageSize, hostarch.ReadWrite, fixedAt(m.base), privateFile(f, 0)), 4*pageSize)
		dst := rangeAt(m.base+1<<30, 4*pageSize)
		for i := hostarch.Addr(0); i < 4*pageSize; i += pageSize {
			m.mustStore(src.Start+i, "old")
		}
		var copied atomic.Bool
		f.on("CopyMapping", 1, nil, func(any) error { copied.Store(true); return nil })
		p := f.id.pauseIf("IncRef", 1, func(any) bool { return copied.Load() }) // by the new vma
		move := spawn(t, "mremap", func() error { return m.move(src, dst.Start) })
		p.wait()
		if n := len(f.set.registrations()); n != 2 {
			t.Fatalf("the test is wrong: registered are %v", f.set.dump())
		}
		m.Invalidate(rangeAt(dst.Start+pageSize, 2*pageSize), memmap.InvalidateOpts{InvalidatePrivate: true})
		gone := rangeAt(src.Start+pageSize, 2*pageSize)
		if n := m.residentBytes(gone); n != 0 {
			t.Errorf("%#x invalidated bytes are still there", n)
		}
		if err := m.mustHaveNothing(gone); err != nil {
			t.Error(err)
		}
		p.resume()
		move.mustSucceed()
		m.check()
		for i, want := range []string{"old", zeroes(3), zeroes(3), "old"} {
			m.mustLoad(dst.Start+hostarch.Addr(i)*pageSize, want)
		}
	})

	// The pages are at the destination, and the host still has them mapped at the
	// source. Private copies belong to the mapping alone: if they were given up
	// before that ends, a thread could reach what is somebody else's by then.
	t.Run("while the host unmaps the source", func(t *testing.T) {
		m := newTrapMM(t)
		f := newTestMappable(t, m.mf, manyPieces)
		src := rangeAt(m.mustMap(manyPieces, hostarch.ReadWrite, fixedAt(m.base), privateFile(f, 0)), manyPieces)
		dst := rangeAt(m.base+1<<30, manyPieces)
		for a := src.Start; a < src.End; a += pieceSize {
			m.mustStore(a, "old")
		}
		// Without a page in between, unmapping the destination and the hole around it
		// would happen to include the source.
		m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(src.End+1<<20), populated)
		i := m.betweenPieces(src,
			func() error { return m.move(src, dst.Start) },
			func() error {
				m.Invalidate(dst, memmap.InvalidateOpts{InvalidatePrivate: true})
				return m.mustHaveNothing(src)
			})
		i.other.mustBlock()
		i.finish()
		m.check()
		m.mustLoad(dst.Start, zeroes(3))
	})

	// The Mappable knows one destination, and the next one is about to be asked for.
	//
	//	src |pp|..|qq|
	//	dst |  |..|  |
	t.Run("of several mappings", func(t *testing.T) {
		m := newTrapMM(t)
		f, g := newTestMappable(t, m.mf, 4*pageSize), newTestMappable(t, m.mf, 4*pageSize)
		src, dst := rangeAt(m.base, 6*pageSize), m.base+1<<30
		m.mustMap(2*pageSize, hostarch.ReadWrite, fixedAt(src.Start), privateFile(f, 0))
		m.mustMap(2*pageSize, hostarch.ReadWrite, fixedAt(src.Start+4*pageSize), privateFile(g, 0))
		for _, i := range []hostarch.Addr{0, 1, 4, 5} {
			m.mustStore(src.Start+i*pageSize, "old")
		}
		p := g.id.pauseIf("IncRef", 1, func(any) bool { return g.count("CopyMapping") == 1 })
		move := spawn(t, "mremap", func() error { return m.move(src, dst) })
		p.wait()
		for _, page := range []hostarch.Addr{1, 4} { // one of each
			m.Invalidate(rangeAt(dst+page*pageSize, pageSize), memmap.InvalidateOpts{InvalidatePrivate: true})
			if err := m.mustHaveNothing(rangeAt(src.Start+page*pageSize, pageSize)); err != nil {
				t.Error(err)
			}
		}
		p.resume()
		move.mustSucceed()
		m.check()
		for i, want := range map[hostarch.Addr]string{0: "old", 1: zeroes(3), 4: zeroes(3), 5: "old"} {
			m.mustLoad(dst+i*pageSize, want)
		}
	})

	// The file, with its locks held, waits until the host has unmapped the tail that
	// shrinking cuts off. What was at the destination is the same file's, and has to
	// be deregistered, for which it wants these locks: not before.
	//
	//	src |---------f---------|xx tail xx|
	//	dst |xxxxxxxxx f xxxxxxx|
	t.Run("of what shrinking cuts off", func(t *testing.T) {
		m := newTrapMM(t)
		f := newTestMappable(t, m.mf, 2*manyPieces)
		src := m.mustMap(2*manyPieces, hostarch.ReadWrite, fixedAt(m.base), sharedFile(f, 0), populated)
		dst := m.mustMap(manyPieces, hostarch.ReadWrite, fixedAt(m.base+1<<30), sharedFile(f, 0), populated)
		i := m.betweenPieces(rangeAt(dst, manyPieces),
			func() error {
				_, err := m.MRemap(m.ctx, src, 2*manyPieces, manyPieces, MRemapOpts{Move: MRemapMustMove, NewAddr: dst})
				return err
			},
			func() error {
				f.set.replace(memmap.MappableRange{Start: 2*manyPieces - pageSize, End: 2 * manyPieces})
				return m.mustHaveNothing(rangeAt(src+2*manyPieces-pageSize, pageSize))
			})
		i.other.mustBlock()
		i.finish()
		m.check()
	})

	// The pages are at the destination, and the file has not forgotten the source.
	t.Run("while the source is deregistered", func(t *testing.T) {
		m := newTrapMM(t)
		f := newTestMappable(t, m.mf, 2*pageSize)
		src := rangeAt(m.mustMap(2*pageSize, hostarch.ReadWrite, fixedAt(m.base), privateFile(f, 0)), 2*pageSize)
		dst := rangeAt(m.base+1<<30, 2*pageSize)
		m.mustStore(src.Start, "kept")
		m.mustStore(src.Start+pageSize, "cut off")
		p := f.pauseAt("RemoveMapping", 1)
		move := spawn(t, "mremap", func() error { return m.move(src, dst.Start) })
		p.wait()
		f.set.truncate(pageSize) // names both
		if n := m.residentBytes(dst); n != pageSize {
			t.Errorf("%#x bytes are left of a page", n)
		}
		m.Invalidate(src, memmap.InvalidateOpts{InvalidatePrivate: true})
		if n := m.residentBytes(dst); n != pageSize {
			t.Errorf("invalidating the source leaves %#x bytes at the destination", n)
		}
		p.resume()
		move.mustSucceed()
		m.check()
		m.mustLoad(dst.Start, "kept")
		m.mustGetSIGBUS(dst.Start + pageSize)
	})
}

// A child has the mapping at one place, with its pages: the parent's at a moment
// before the move or after it.
func TestForkDuringMremap(t *testing.T) {
	for _, when := range []string{"CopyMapping", "RemoveMapping"} {
		t.Run(when, func(t *testing.T) {
			m := newTrapMM(t)
			f := newTestMappable(t, m.mf, pageSize)
			src := rangeAt(m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(m.base), privateFile(f, 0)), pageSize)
			dst := m.base + 1<<30
			m.mustStore(src.Start, "private")
			p := f.pauseAt(when, 1)
			move := spawn(t, "mremap", func() error { return m.move(src, dst) })
			p.wait()
			var child trapMM
			fork := spawn(t, "fork", func() error {
				c, err := m.Fork(m.ctx)
				if err == nil {
					child = trapMM{wrapMM(t, c, m.ctx.clone())}
				}
				return err
			})
			fork.mustBlock()
			p.resume()
			move.mustSucceed()
			fork.mustSucceed()
			for _, x := range []trapMM{m, child} {
				x.check()
				if n := x.vmas.Snapshot().Len(); n != 1 {
					t.Errorf("%s has %d mappings:\n%s", x.name, n, x.maps())
				}
				got := make([]byte, 7)
				if _, err := x.CopyIn(x.ctx, dst, got, usermem.IOOpts{}); err != nil || string(got) != "private" {
					t.Error(fmt.Errorf("%s has %q, %v", x.name, got, err))
				}
			}
			if n := len(f.set.registrations()); n != 2 {
				t.Errorf("registered are %v", f.set.dump())
			}
		})
	}
}

// I/O that finds all pages mapped looks at nothing but pmas; it waits for a thaw all
// the same.
func TestCopyFromMovedPagesWaitsForTheThaw(t *testing.T) {
	m := newTestMM(t)
	f := newTestMappable(t, m.mf, pageSize)
	src, dst := m.base, m.base+16*pageSize
	m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(src), sharedFile(f, 0))
	buf := make([]byte, 8)
	read := func(addr hostarch.Addr) error {
		_, err := m.CopyIn(m.ctx, addr, buf, usermem.IOOpts{})
		return err
	}
	if err := read(src); err != nil { // so that they are mapped
		t.Fatal(err)
	}
	p := f.pauseAt("RemoveMapping", 1)
	move := spawn(t, "mremap", func() error {
		_, err := m.MRemap(m.ctx, src, pageSize, pageSize, MRemapOpts{Move: MRemapMustMove, NewAddr: dst})
		return err
	})
	p.wait()
	c := spawn(t, "copy", func() error { return read(dst) })
	c.mustBlock()
	p.resume()
	move.mustSucceed()
	c.mustSucceed()
	m.check()
}

// The host unmaps many sources step by step, and nobody elsewhere waits.
func TestFaultsPassWhileSourcesOfAMoveAreUnmapped(t *testing.T) {
	m := newTrapMM(t)
	const each = 2 * pieceSize
	for i := range 2 {
		f := newTestMappable(t, m.mf, each)
		m.mustMap(each, hostarch.ReadWrite, fixedAt(m.base+hostarch.Addr(i)*each), sharedFile(f, 0), populated)
	}
	elsewhere := m.mustMap(pageSize, hostarch.ReadWrite)
	m.passDuring(rangeAt(m.base, 2*each),
		func() error { return m.move(rangeAt(m.base, 2*each), m.base+1<<30) },
		func() error { return m.fault(elsewhere, hostarch.Write) })
	m.check()
}
