package mm

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
)

// Claims of this file: a replacement whose second registration is refused (the one
// under the MemoryManager, after the old mapping's is gone) lives on under its
// pending space. It succeeded, invalidations arrive at it as at any other, and all
// that can happen to a mapping can happen to it.

// keptPending replaces 16 pages of file f by the same pages of the same file, so
// that registrations collide, and has the second registration refused. Edges of 4
// pages stay as they were.
//
//	|--edge (mm)--|--ar (pending space)--|--edge (mm)--|
func keptPending(t testing.TB, file func(*testMappable, uint64) mmapMod, mods ...func(*mmConfig)) *scene {
	t.Helper()
	s := newScene(t, 16*pageSize, mods...)
	s.put(s.all, hostarch.AnyAccess, file)
	s.f.fail("AddMapping", 2, linuxerr.ENODEV)
	s.put(s.ar, hostarch.AnyAccess, file)
	s.mustBeKept(s.ar)
	s.dirty(s.ar)
	s.stamp()
	return s
}

// pendingRanges returns the ranges that are registered under pending spaces.
func (s *scene) pendingRanges() []hostarch.AddrRange {
	var ars []hostarch.AddrRange
	for _, r := range s.f.set.registrations() {
		if _, ok := r.MappingSpace.(*pendingSpace); ok {
			ars = append(ars, r.AddrRange)
		}
	}
	return ars
}

// mustBeKept checks that exactly the given ranges are registered under pending
// spaces.
func (s *scene) mustBeKept(want ...hostarch.AddrRange) {
	s.t.Helper()
	s.mustBeRegistered()
	if got := s.pendingRanges(); !slices.Equal(got, want) {
		s.t.Fatalf("registered under pending spaces: %v, want %v", got, want)
	}
}

// mustBeRegistered checks that each vma of the file is registered once, under the
// space that it says.
func (s *scene) mustBeRegistered() {
	s.t.Helper()
	s.mustBeSettled()
	pending := s.pendingRanges()
	var files, registered hostarch.Addr
	for r, v := range s.vmas.Snapshot().All() {
		ar := addrRange(r)
		kept := slices.ContainsFunc(pending, func(p hostarch.AddrRange) bool { return p.IsSupersetOf(ar) })
		if (v.space != nil) != kept {
			s.t.Errorf("vma %v has a pending space: %t; it is registered under one: %t", ar, v.space != nil, kept)
		}
		if v.mappable != nil {
			files += ar.Length()
		}
	}
	for _, r := range s.f.set.registrations() {
		registered += r.AddrRange.Length()
	}
	if files != registered {
		s.t.Errorf("%#x bytes of files are mapped, %#x are registered:\n%s", files, registered, strings.Join(s.f.set.dump(), "\n"))
	}
}

// mustHear checks that an invalidation of each page of ar arrives, private pages
// included if the file is truncated. The pages are at offsets from off on.
func (s *scene) mustHear(ar hostarch.AddrRange, off uint64) {
	s.t.Helper()
	s.mustFault(ar.Start, uint64(ar.Length()), hostarch.Read)
	for a := ar.Start; a < ar.End; a += pageSize {
		o := off + uint64(a-ar.Start)
		s.f.set.invalidate(memmap.MappableRange{Start: o, End: o + pageSize}, memmap.InvalidateOpts{InvalidatePrivate: true})
		if n := s.residentBytes(rangeAt(a, pageSize)); n != 0 {
			s.t.Fatalf("an invalidation of the page at %#x (offset %#x) did not arrive", a, o)
		}
		if n := s.as.mappedPages(rangeAt(a, pageSize)); n != 0 {
			s.t.Fatalf("the page at %#x is still mapped by the host", a)
		}
	}
	s.check()
}

// eachKind runs test for shared and private mappings.
func eachKind(t *testing.T, test func(t *testing.T, s *scene)) {
	for name, file := range map[string]func(*testMappable, uint64) mmapMod{"shared": sharedFile, "private": privateFile} {
		t.Run(name, func(t *testing.T) { test(t, keptPending(t, file)) })
	}
}

func TestRefusedSecondRegistrationStillHearsInvalidations(t *testing.T) {
	eachKind(t, func(t *testing.T, s *scene) {
		s.mustHear(s.all, 0)
		s.f.set.truncate(0)
		if err := s.fault(s.ar.Start, hostarch.Read); err == nil {
			t.Error("the file's truncation was not seen")
		}
	})
}

// Private pages are spared unless the invalidation means them.
func TestRefusedSecondRegistrationKeepsPrivatePages(t *testing.T) {
	s := keptPending(t, privateFile)
	s.f.set.invalidate(memmap.MappableRange{End: 64 * pageSize}, memmap.InvalidateOpts{})
	for page := range hostarch.Addr(16) {
		dirty := page < 8 // see scene.dirty
		if n := s.residentBytes(rangeAt(s.ar.Start+page*pageSize, pageSize)); (n != 0) != dirty {
			t.Errorf("page %d has %#x bytes resident", page, n)
		}
	}
	s.mustBeSettled()
}

func TestKeptPendingUnmapped(t *testing.T) {
	eachKind(t, func(t *testing.T, s *scene) {
		s.mustUnmap(s.ar.Start, uint64(s.ar.Length()))
		s.mustBeKept()
		s.mustHear(rangeAt(s.base, edge), 0)
	})
}

// Unmapping the middle splits it; both halves stay registered as they were.
func TestKeptPendingSplit(t *testing.T) {
	eachKind(t, func(t *testing.T, s *scene) {
		s.mustUnmap(s.ar.Start+4*pageSize, 2*pageSize)
		left := hostarch.AddrRange{Start: s.ar.Start, End: s.ar.Start + 4*pageSize}
		right := hostarch.AddrRange{Start: s.ar.Start + 6*pageSize, End: s.ar.End}
		s.mustBeKept(left, right)
		s.mustHear(right, uint64(right.Start-s.base))
		s.mustUnmap(left.Start-pageSize, 2*pageSize) // across the edge
		left.Start += pageSize
		s.mustBeKept(left, right)
		s.mustHear(left, uint64(left.Start-s.base))
	})
}

// Changing permissions splits it and changing them back merges it again, but not
// with its neighbours, which are registered otherwise.
func TestKeptPendingProtected(t *testing.T) {
	eachKind(t, func(t *testing.T, s *scene) {
		for _, at := range []hostarch.AccessType{hostarch.Read, hostarch.AnyAccess} {
			if err := s.MProtect(s.ar.Start-2*pageSize, 6*pageSize, at, false); err != nil {
				t.Fatal(err)
			}
			s.mustBeKept(s.ar)
		}
		if n := s.vmas.Snapshot().Len(); n != 3 {
			t.Errorf("%d vmas, want 3", n)
		}
		s.mustHear(s.all, 0)
	})
}

// The child registers under itself.
func TestKeptPendingForked(t *testing.T) {
	eachKind(t, func(t *testing.T, s *scene) {
		child := s.fork()
		for r, v := range child.vmas.Snapshot().All() {
			if v.space != nil {
				t.Errorf("the child's vma %v has a pending space", r)
			}
		}
		child.check()
		s.mustFault(s.ar.Start, uint64(s.ar.Length()), hostarch.Read)
		child.mustFault(s.ar.Start, uint64(s.ar.Length()), hostarch.Read)
		s.f.set.invalidate(memmap.MappableRange{End: 64 * pageSize}, memmap.InvalidateOpts{InvalidatePrivate: true})
		if a, b := s.residentBytes(s.ar), child.residentBytes(s.ar); a != 0 || b != 0 {
			t.Errorf("%#x and %#x bytes are resident", a, b)
		}
		s.mustUnmap(s.ar.Start, uint64(s.ar.Length()))
		child.exit()
		s.mustBeKept()
	})
}

// Its replacement is registered under another pending space, and then normally.
func TestKeptPendingReplaced(t *testing.T) {
	for _, refuse := range []bool{false, true} {
		eachKind(t, func(t *testing.T, s *scene) {
			file := sharedFile
			if s.vmaMustBe(s.ar.Start).private {
				file = privateFile
			}
			part := rangeAt(s.ar.Start+4*pageSize, 4*pageSize)
			kept := []hostarch.AddrRange{{Start: s.ar.Start, End: part.Start}, {Start: part.End, End: s.ar.End}}
			if refuse {
				s.f.fail("AddMapping", 2, linuxerr.ENODEV)
				kept = []hostarch.AddrRange{kept[0], part, kept[1]}
			}
			s.put(part, hostarch.AnyAccess, file)
			if refuse {
				s.mustBeSettled()
				if n := s.vmas.Snapshot().Len(); n != 5 {
					t.Errorf("%d vmas, want 5: they have different spaces", n)
				}
			} else {
				s.mustBeKept(kept...)
			}
			s.mustHear(s.all, 0)
		})
	}
}

func (s *scene) vmaMustBe(addr hostarch.Addr) *vma {
	s.t.Helper()
	v, _, ok := s.vmaAt(addr)
	if !ok {
		s.t.Fatalf("nothing is mapped at %#x", addr)
	}
	return v
}

// A failed replacement leaves it alone.
func TestKeptPendingSurvivesFailedReplacement(t *testing.T) {
	eachKind(t, func(t *testing.T, s *scene) {
		before := s.captureAll()
		s.f.fail("AddMapping", 1, linuxerr.ENODEV)
		if _, err := s.mmap(4*pageSize, hostarch.Read, sharedFile(s.f, edge), fixedAt(s.ar.Start)); err == nil {
			t.Error("MMap succeeded")
		}
		s.mustBeAsBefore(before)
		s.mustBeKept(s.ar)
	})
}

// CopyMapping requires that the mapping at the source exists in the space that it is
// told, so what is moved or copied is told that of the source.
func TestKeptPendingRemapped(t *testing.T) {
	dst := func(s *scene) hostarch.Addr { return s.base + 1<<30 }
	for _, c := range []struct {
		name     string
		from, to uint64 // pages, at s.ar.Start
		mode     MRemapMoveMode
	}{
		{"moved", 16, 16, MRemapMustMove},
		{"moved and grown", 16, 20, MRemapMustMove},
		{"moved and shrunk", 16, 8, MRemapMustMove},
		{"shrunk", 16, 8, MRemapNoMove},
	} {
		t.Run(c.name, func(t *testing.T) {
			eachKind(t, func(t *testing.T, s *scene) {
				at, err := s.MRemap(s.ctx, s.ar.Start, c.from*pageSize, c.to*pageSize, MRemapOpts{Move: c.mode, NewAddr: dst(s)})
				if err != nil {
					t.Fatal(err)
				}
				s.mustBeRegistered()
				s.mustHear(rangeAt(at, c.to*pageSize), edge)
			})
		})
	}
	t.Run("grown", func(t *testing.T) {
		eachKind(t, func(t *testing.T, s *scene) {
			s.mustUnmap(s.ar.End, edge)
			if _, err := s.MRemap(s.ctx, s.ar.Start, 16*pageSize, 20*pageSize, MRemapOpts{}); err != nil {
				t.Fatal(err)
			}
			// What is new has the same space, or the two would be no single mapping to the next mremap.
			grown := rangeAt(s.ar.Start, 20*pageSize)
			s.mustBeKept(grown)
			if _, ar, _ := s.vmaAt(grown.Start); ar != grown {
				t.Errorf("there is a mapping at %v, want %v", ar, grown)
			}
			s.mustHear(s.all, 0)
		})
	})
	t.Run("copied", func(t *testing.T) {
		s := keptPending(t, sharedFile)
		if _, err := s.MRemap(s.ctx, s.ar.Start, 0, 4*pageSize, MRemapOpts{Move: MRemapMustMove, NewAddr: dst(s)}); err != nil {
			t.Fatal(err)
		}
		s.mustBeRegistered()
		s.mustHear(rangeAt(dst(s), 4*pageSize), edge)
	})
}

func TestKeptPendingSavedAndRestored(t *testing.T) {
	eachKind(t, func(t *testing.T, s *scene) {
		s.mustUnmap(s.ar.Start+4*pageSize, pageSize) // two vmas share the space
		maps := s.maps()
		r := &scene{testMM: s.saveAndRestore(), ar: s.ar, all: s.all}
		r.f = replacementOf(r.w, r.w.maps, s.f)
		r.g = replacementOf(r.w, r.w.maps, s.g)
		if got := r.maps(); got != maps {
			t.Errorf("maps are\n%s\nand were\n%s", got, maps)
		}
		left := rangeAt(s.ar.Start, 4*pageSize)
		right := hostarch.AddrRange{Start: s.ar.Start + 5*pageSize, End: s.ar.End}
		r.mustBeKept(left, right)
		if a, b := r.vmaMustBe(left.Start).space, r.vmaMustBe(right.Start).space; a != b || a.mm != r.MemoryManager {
			t.Errorf("the restored vmas have the spaces %p and %p", a, b)
		}
		r.mustHear(left, uint64(left.Start-s.base))
		r.mustHear(right, uint64(right.Start-s.base))
		r.mustUnmap(right.Start, uint64(right.Length()))
		r.mustBeKept(left)
	})
}

// The replacement merges with its neighbours first, and is cut out of them again to
// be marked. References on identities follow.
func TestKeptPendingIsCutOutOfMergedNeighbours(t *testing.T) {
	s := newScene(t, 16*pageSize)
	s.put(s.all, hostarch.ReadWrite, sharedFile)
	// Not the same file for its identity, but for its set.
	alias := s.f.set.newMappable()
	s.mustMap(uint64(s.ar.Length()), hostarch.ReadWrite, sharedFile(alias, edge), fixedAt(s.ar.Start))
	s.f.fail("AddMapping", 2, linuxerr.ENODEV)
	s.put(s.ar, hostarch.ReadWrite, sharedFile)
	s.mustBeKept(s.ar)
	if n := s.f.id.count(); n != 4 {
		t.Errorf("%d references on the identity, want the test's and one for each of 3 vmas", n)
	}
	if n := alias.id.count(); n != 1 {
		t.Errorf("%d references on the identity of what was replaced", n)
	}
	s.mustHear(s.all, 0)
}

// The first reader may still look at the old tree while the mark is published.
func TestKeptPendingUnderReaderReleasesNothingEarly(t *testing.T) {
	s := newScene(t, 16*pageSize)
	s.put(s.all, hostarch.ReadWrite, sharedFile)
	alias := s.f.set.newMappable()
	s.mustMap(uint64(s.ar.Length()), hostarch.ReadWrite, sharedFile(alias, edge), fixedAt(s.ar.Start))
	alias.id.close()
	root, leave := s.enter()
	s.f.fail("AddMapping", 2, linuxerr.ENODEV)
	s.put(s.ar, hostarch.ReadWrite, sharedFile)
	for _, v := range root.All() {
		v.id.MappedName(s.ctx) // complains if it was released
	}
	leave(s.ctx)
	if !alias.id.isReleased() {
		t.Error("the replaced identity was not released with the last reader")
	}
	s.mustBeKept(s.ar)
}

// keptAsReplaced returns two pages of a private file that stay registered under a pending
// space, the first of them with a private page, in a world of real memory.
func keptAsReplaced(t *testing.T) (trapMM, *testMappable) {
	m := newTrapMM(t)
	f := newTestMappable(t, m.mf, 2*pageSize)
	m.mustMap(2*pageSize, hostarch.ReadWrite, fixedAt(m.base), privateFile(f, 0))
	m.mustStore(m.base, "x")
	f.fail("AddMapping", 2, linuxerr.ENOMEM) // by settle
	m.mustMap(2*pageSize, hostarch.ReadWrite, fixedAt(m.base), privateFile(f, 0))
	v, _, _ := m.vmaAt(m.base)
	if v.space == nil {
		t.Fatalf("the second registration was not refused:\n%v", f.set.dump())
	}
	return m, f
}

// When it is replaced in turn, it is an old mapping: an invalidation that comes while it
// is still registered does not mean the new mapping's private pages.
func TestReplacedKeptPendingSparesNewPages(t *testing.T) {
	m, f := keptAsReplaced(t)
	p := f.pauseAt("RemoveMapping", 1)
	replace := spawn(t, "replacement", func() error {
		_, err := m.mmap(2*pageSize, hostarch.ReadWrite, fixedAt(m.base), populated)
		return err
	})
	p.wait()
	if !m.storeWithoutFault(m.base, "not the file's") {
		t.Fatal("the replacement was not installed")
	}
	f.set.truncate(0)
	p.resume()
	replace.mustSucceed()
	m.check()
	m.mustLoad(m.base, "not the file's")
}

// A replacement that fails leaves it with its private pages, but for those that its file
// no longer has.
func TestKeptPendingThatComesBackKeepsPrivatePages(t *testing.T) {
	m, f := keptAsReplaced(t)
	m.mustStore(m.base, "private")
	m.mustStore(m.base+pageSize, "private")
	g := newTestMappable(t, m.mf, 2*pageSize)
	g.fail("Translate", 1, linuxerr.EIO)
	p := g.pauseAt("RemoveMapping", 1)
	failing := spawn(t, "mmap", func() error {
		if _, err := m.mmap(2*pageSize, hostarch.ReadWrite, fixedAt(m.base), sharedFile(g, 0), populated, required); !linuxerr.Equals(linuxerr.EIO, err) {
			return fmt.Errorf("want EIO, got %w", err)
		}
		return nil
	})
	p.wait()
	f.set.truncate(pageSize)
	p.resume()
	failing.mustSucceed()
	m.check()
	m.mustLoad(m.base, "private")
	m.mustGetSIGBUS(m.base + pageSize)
}
