package mm

import (
	"testing"

	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
)

// Claims of this file: Fork that fails, at whichever vma, leaves no trace of a child,
// and the parent as it was.

func TestForkWithoutAddressSpaceChangesNothing(t *testing.T) {
	s := newScene(t, sceneSizes[0])
	s.put(s.all, hostarch.ReadWrite, nil)
	s.stamp()
	before := s.captureAll()
	s.p.fail("NewAddressSpace", 1, linuxerr.ENOMEM)
	if _, err := s.Fork(s.ctx); !linuxerr.Equals(linuxerr.ENOMEM, err) {
		t.Errorf("got %v", err)
	}
	s.mustBeAsBefore(before)
}

// Five mappings of two files, anonymous memory and one that is not inherited. One
// AddMapping per mapping of a file, so this is about each of the vmas.
func TestForkRefusedAtAnyMappingChangesNothing(t *testing.T) {
	everyCall(t, false, func(t *testing.T, n int) bool {
		s := newScene(t, sceneSizes[0])
		backdrops[4].set(s, newcomers[0]) // several
		s.mustMap(edge, hostarch.Read, sharedFile(s.g, 0), fixedAt(s.all.End), populated)
		s.mustMap(edge, hostarch.Read, privateFile(s.f, 0), fixedAt(s.all.End+edge))
		s.mustMap(edge, hostarch.Read, sharedFile(s.g, 0), fixedAt(s.all.End+2*edge))
		if err := s.SetDontFork(s.all.End+2*edge, edge, true); err != nil {
			t.Fatal(err)
		}
		s.stamp()
		before := s.captureAll()
		// The n-th of all AddMappings, of whichever file.
		calls, refused := 0, false
		count := func(any) error {
			if calls++; calls == n {
				refused = true
				return linuxerr.ENODEV
			}
			return nil
		}
		s.f.on("AddMapping", 0, nil, count)
		s.g.on("AddMapping", 0, nil, count)
		if child, err := s.Fork(s.ctx); err == nil {
			wrapMM(t, child, s.ctx.clone())
			if refused || calls != 4 {
				t.Errorf("the child was told %d mappings", calls)
			}
			return false
		} else if !linuxerr.Equals(linuxerr.ENODEV, err) {
			t.Errorf("got %v", err)
		}
		// Registering comes before the first page is shared, so not even permissions
		// of pages have changed.
		s.mustBeAsBefore(before)
		return true
	})
}

// The mappings that a failed child registered are deregistered before Fork returns,
// and an invalidation that comes meanwhile does not miss the parent's.
func TestInvalidationDuringFailingForkArrives(t *testing.T) {
	s := newScene(t, sceneSizes[0])
	s.put(s.all, hostarch.ReadWrite, sharedFile)
	s.mustMap(edge, hostarch.Read, sharedFile(s.g, 0), fixedAt(s.all.End))
	s.g.on("AddMapping", 1, nil, func(any) error {
		if n := len(s.f.set.registrations()); n != 2 {
			t.Errorf("%d mappings are registered", n)
		}
		s.f.set.invalidate(memmap.MappableRange{End: edge}, memmap.InvalidateOpts{})
		return linuxerr.ENODEV
	})
	if _, err := s.Fork(s.ctx); !linuxerr.Equals(linuxerr.ENODEV, err) {
		t.Errorf("got %v", err)
	}
	if n := s.residentBytes(rangeAt(s.base, edge)); n != 0 {
		t.Errorf("%#x bytes that were invalidated are resident", n)
	}
	if n := len(s.f.set.registrations()); n != 1 {
		t.Errorf("%d mappings are registered: %v", n, s.f.set.dump())
	}
	s.mustBeSettled()
}
