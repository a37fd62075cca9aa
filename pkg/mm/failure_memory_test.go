package mm

import (
	"fmt"
	"testing"

	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
	"gvisor.dev/gvisor/pkg/usermem"
)

// Claims of this file: when the memory file has nothing more to give, what is there
// stays: a mapping is made without pages, a required one is not made, a copy that
// cannot be made leaves the original in place, and when there is memory again, all
// goes on.

// newScarceScene is newScene on a memory file that, after leave was called, has only
// so many bytes left.
func newScarceScene(t testing.TB, n uint64) (s *scene, leave func(spare uint64)) {
	mf, leave := newScarceFile(t)
	return newScene(t, n, withFile(mf)), leave
}

func TestMapWithoutMemoryReplacesAndFaultsFail(t *testing.T) {
	for _, size := range sceneSizes {
		for _, p := range populations {
			s, leave := newScarceScene(t, size)
			s.put(s.all, hostarch.ReadWrite, sharedFile)
			leave(0)
			if err := newcomers[0].come(s, p.mods...); err != nil {
				t.Fatalf("%s: %v", p.name, err)
			}
			s.mustBeSettled()
			if n := s.residentBytes(s.ar) + s.as.mappedPages(s.ar); n != 0 {
				t.Errorf("%s: %#x bytes are resident or mapped", p.name, n)
			}
			if err := s.fault(s.ar.Start, hostarch.Read); err == nil {
				t.Errorf("%s: a fault found memory where there is none", p.name)
			}
			s.mustUnmap(s.ar.Start, uint64(s.ar.Length()))
		}
	}
}

// The first piece finds memory, the second does not.
func TestRequiredMapWithoutMemoryBringsEverythingBack(t *testing.T) {
	for _, b := range backdrops {
		for _, spare := range []uint64{0, pieceSize - edge} {
			t.Run(b.name, func(t *testing.T) {
				s, leave := newScarceScene(t, pieceSize+4*pageSize)
				b.set(s, newcomers[0])
				s.stamp()
				leave(spare)
				before, elsewhere := s.captureAll(), s.elsewhere()
				if err := newcomers[0].come(s, committedNow, required); err == nil {
					t.Error("MMap succeeded")
				}
				s.mustBeBack(before, elsewhere)
			})
		}
	}
}

func TestMLockWithoutMemoryFailsAndKeepsWhatIsThere(t *testing.T) {
	s, leave := newScarceScene(t, sceneSizes[0])
	s.mustMap(4*pieceSize, hostarch.ReadWrite, fixedAt(s.base))
	s.mustFault(s.base, pageSize, hostarch.Write)
	s.stamp()
	leave(0)
	before := s.captureAll()
	if err := s.MLock(s.ctx, s.base, 4*pieceSize, memmap.MLockEager); err == nil {
		t.Error("MLock succeeded")
	}
	// As in Linux, the vmas are locked all the same.
	s.mustBeSettled()
	mustBeEqual(t, before.only(" pmas", " contents", " host", " references"), s.captureAll().only(" pmas", " contents", " host", " references"))
	if n := s.vmas.Snapshot().Meta().locked; n != 4*pieceSize {
		t.Errorf("%#x bytes are locked", n)
	}
}

// A write to a page that fork shared needs a copy. Without memory for one, both
// have the page as it was.
func TestCopyOnWriteWithoutMemoryKeepsPage(t *testing.T) {
	for name, back := range map[string]func(s *scene){
		"forked": func(s *scene) {
			s.put(s.all, hostarch.ReadWrite, nil)
			s.stamp()
			s.fork()
		},
		"private file": func(s *scene) {
			s.put(s.all, hostarch.ReadWrite, privateFile)
			s.stamp()
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, leave := newScarceScene(t, sceneSizes[0])
			back(s)
			s.mustFault(s.ar.Start, pageSize, hostarch.Read)
			leave(0)
			before := s.captureAll()
			if err := s.fault(s.ar.Start, hostarch.Write); err == nil {
				t.Error("the fault found memory where there is none")
			}
			s.mustBeAsBefore(before)
			if _, err := s.CopyOut(s.ctx, s.ar.Start, []byte("new"), usermem.IOOpts{}); err == nil {
				t.Error("CopyOut found memory where there is none")
			}
			s.mustBeAsBefore(before)
			if _, err := s.Pin(s.ctx, rangeAt(s.ar.Start, pageSize), hostarch.Read, false); err == nil {
				t.Error("Pin found memory where there is none")
			}
			s.mustBeAsBefore(before)
		})
	}
}

// forkFails forks and checks that it fails and that the parent has what it had; pmas
// may have become copy-on-write, which the next write ends.
func (s *scene) forkFails(before captured) {
	s.t.Helper()
	made := s.p.count("NewAddressSpace")
	if _, err := s.Fork(s.ctx); err == nil {
		s.t.Fatal("Fork succeeded")
	}
	s.mustBeSettled()
	mustBeEqual(s.t, before.without("pmas").without("host"), s.captureAll().without("pmas").without("host"))
	if s.p.count("NewAddressSpace") != made+1 {
		s.t.Error("no address space was made for the child")
	}
	released := 0
	for obj := range s.w.names {
		if as, ok := obj.(*recordingAS); ok && as.released {
			released++
		}
	}
	if released != 1 {
		s.t.Errorf("%d address spaces were released; the child's should be", released)
	}
	if pre, post := s.as.count("PreFork"), s.as.count("PostFork"); pre != post {
		s.t.Errorf("PreFork was called %d times, PostFork %d times", pre, post)
	}
}

// Pinned pages are copied at once. spare lets some of the copies succeed.
func TestForkWithoutMemoryForPinnedCopiesChangesNothing(t *testing.T) {
	for _, spare := range []uint64{0, pageSize, 2 * pageSize} {
		t.Run(fmt.Sprintf("%#x bytes are left", spare), func(t *testing.T) {
			s, leave := newScarceScene(t, sceneSizes[0])
			s.put(s.all, hostarch.ReadWrite, nil)
			s.mustMap(8*pageSize, hostarch.ReadWrite, fixedAt(s.all.End), sharedFile(s.g, 0), populated)
			s.stamp()
			var pinned []PinnedRange
			for _, page := range []hostarch.Addr{2, 6, 10} {
				prs, err := s.Pin(s.ctx, rangeAt(s.base+page*pageSize, pageSize), hostarch.Write, false)
				if err != nil {
					t.Fatal(err)
				}
				pinned = append(pinned, prs...)
			}
			_, _, page, _ := s.pmaAt(s.base)
			leave(spare)
			before := s.captureAll()
			s.forkFails(before)

			// The parent's pages are its own again: a write takes no copy, of which there
			// could be none.
			s.mustFault(s.base, uint64(s.all.Length()), hostarch.Write)
			if _, _, now, _ := s.pmaAt(s.base); now != page {
				t.Errorf("the page moved from %v to %v", page, now)
			}
			mustBeEqual(t, before.only("contents", "references"), s.captureAll().only("contents", "references"))
			s.check()
			Unpin(pinned)
			s.exit()
		})
	}
}
