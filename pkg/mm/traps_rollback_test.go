// A mapping that must be populated can fail after it was published. Then all that it
// replaced comes back: vmas, pages, registrations and references. What was invalidated
// meanwhile does not.

package mm

import (
	"fmt"
	"testing"

	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
	"gvisor.dev/gvisor/pkg/sentry/pgalloc"
)

// mustFail maps n bytes, which must be populated and cannot.
func (m trapMM) mustFail(n uint64, mods ...mmapMod) {
	m.t.Helper()
	if _, err := m.mmap(n, hostarch.ReadWrite, append(mods, populated, required)...); !linuxerr.Equals(linuxerr.EIO, err) {
		m.t.Fatalf("MMap: %v; want the EIO that populating failed with", err)
	}
}

// What is replaced:
//
//	old | anonymous | shared file | hole | private file |
//	new     |xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx|
func TestRequiredPopulateFailureRestoresOld(t *testing.T) {
	const part = manyPieces / 4
	for name, fail := range map[string]func(m trapMM, f *testMappable){
		"Translate at first":       func(m trapMM, f *testMappable) { f.fail("Translate", 1, linuxerr.EIO) },
		"Translate in piece 3":     func(m trapMM, f *testMappable) { f.step = pieceSize; f.fail("Translate", 3, linuxerr.EIO) },
		"MapFile at first":         func(m trapMM, f *testMappable) { m.as.fail("MapFile", 1, linuxerr.EIO) },
		"MapFile in piece 3":       func(m trapMM, f *testMappable) { m.as.fail("MapFile", 3, linuxerr.EIO) },
		"MapFile, in half a piece": func(m trapMM, f *testMappable) { f.step = pieceSize / 2; m.as.fail("MapFile", 2, linuxerr.EIO) },
	} {
		t.Run(name, func(t *testing.T) {
			m := newTrapMM(t)
			f := newTestMappable(t, m.mf, manyPieces)
			old := newTestMappable(t, m.mf, 2*part)
			m.mustMap(part, hostarch.ReadWrite, fixedAt(m.base), populated)
			m.mustMap(part, hostarch.ReadWrite, fixedAt(m.base+part), sharedFile(old, 0), populated)
			m.mustMap(part, hostarch.ReadWrite, fixedAt(m.base+3*part), privateFile(old, part))
			for i, off := range []hostarch.Addr{0, part - pageSize, part, 2*part - pageSize, 3 * part, 4*part - pageSize} {
				m.mustStore(m.base+off, fmt.Sprint("old ", i))
			}
			before := m.capture().without("host")
			fail(m, f)
			m.mustFail(manyPieces-2*pageSize, fixedAt(m.base+pageSize), sharedFile(f, 0))
			m.check()
			mustBeEqual(t, before, m.capture().without("host"))
			for i, off := range []hostarch.Addr{0, part - pageSize, part, 2*part - pageSize, 3 * part, 4*part - pageSize} {
				m.mustLoad(m.base+off, fmt.Sprint("old ", i))
			}
			if _, err := m.load(m.base+2*part, 1); !linuxerr.Equals(linuxerr.EFAULT, err) {
				t.Errorf("in the hole, reading says %v", err)
			}
			m.check()
		})
	}
}

// Nothing has to be replaced for a mapping to be one that must be populated.
func TestRequiredPopulateWithoutReplacing(t *testing.T) {
	for name, n := range map[string]uint64{"small": pageSize, "in pieces": manyPieces} {
		t.Run(name, func(t *testing.T) {
			m := newTrapMM(t)
			f := newTestMappable(t, m.mf, manyPieces)
			// A neighbour that it can merge with.
			m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(m.base), sharedFile(f, 0), populated)
			before := m.capture().without("host")
			f.fail("Translate", 1, linuxerr.EIO)
			m.mustFail(n, noReplaceAt(m.base+pageSize), sharedFile(f, pageSize))
			m.check()
			mustBeEqual(t, before, m.capture().without("host"))

			addr, err := m.mmap(n, hostarch.ReadWrite, noReplaceAt(m.base+pageSize), sharedFile(f, 0), populated, required)
			if err != nil {
				t.Fatal(err)
			}
			m.check()
			if _, ar, ok := m.vmaAt(addr); !ok || ar != rangeAt(addr, n) {
				t.Fatalf("MMap returned %#x, where is %v (%t)", addr, ar, ok)
			}
			if !m.storeWithoutFault(addr+hostarch.Addr(n)-pageSize, "mapped") {
				t.Error("it is not populated")
			}
		})
	}
}

// The transaction merged the new vma with both neighbours, and freed references of
// theirs for that.
//
//	before |-----------A-----------|   one reference
//	new            |---A---|           merges into one again, and fails
func TestAbortAfterMergeKeepsIdentityRefs(t *testing.T) {
	for name, c := range map[string]struct{ start, n hostarch.Addr }{
		"middle":     {pageSize, pageSize},
		"start":      {0, pageSize},
		"end":        {2 * pageSize, pageSize},
		"whole":      {0, 3 * pageSize},
		"and beyond": {2 * pageSize, 2 * pageSize},
	} {
		t.Run(name, func(t *testing.T) {
			m := newTrapMM(t)
			f := newTestMappable(t, m.mf, 4*pageSize)
			m.mustMap(3*pageSize, hostarch.ReadWrite, fixedAt(m.base), sharedFile(f, 0))
			m.mustStore(m.base, "A")
			before := m.capture().without("host")
			for _, op := range []string{"AddMapping", "Translate"} {
				f.fail(op, 1, linuxerr.EIO)
				m.mustFail(uint64(c.n), fixedAt(m.base+c.start), sharedFile(f, uint64(c.start)))
				m.check()
				mustBeEqual(t, before, m.capture().without("host"))
			}
			m.mustUnmap(m.base+pageSize, pageSize) // two vmas, and two references
			f.id.close()
			m.mustUnmap(m.base, pageSize)
			if f.id.isReleased() {
				t.Fatal("a mapped file was released")
			}
			m.mustUnmap(m.base, 3*pageSize)
			if !f.id.isReleased() {
				t.Fatal("the last munmap did not release the file")
			}
		})
	}
}

// Pages that were invalidated while they were taken out must not come back.
func TestInvalidateDuringRequiredPopulateHoldsAfterItFails(t *testing.T) {
	m := newTrapMM(t)
	old, f := newTestMappable(t, m.mf, 3*pageSize), newTestMappable(t, m.mf, 3*pageSize)
	m.mustMap(3*pageSize, hostarch.ReadWrite, fixedAt(m.base), privateFile(old, 0))
	for i := hostarch.Addr(0); i < 3*pageSize; i += pageSize {
		m.mustStore(m.base+i, "private")
	}
	f.fail("Translate", 1, linuxerr.EIO)
	unregistered := f.pauseAt("RemoveMapping", 1)
	failing := spawn(t, "mmap", func() error {
		if _, err := m.mmap(3*pageSize, hostarch.ReadWrite, fixedAt(m.base), sharedFile(f, 0), populated, required); !linuxerr.Equals(linuxerr.EIO, err) {
			return fmt.Errorf("want EIO, got %w", err)
		}
		return nil
	})
	unregistered.wait() // the populate has failed; nothing is back yet
	old.set.truncate(pageSize)
	unregistered.resume()
	failing.mustSucceed()
	m.check()
	m.mustLoad(m.base, "private")
	m.mustGetSIGBUS(m.base + pageSize)
	m.mustGetSIGBUS(m.base + 2*pageSize)
}

// watchedFile is a memory file that calls a function when references are dropped.
type watchedFile struct {
	*pgalloc.MemoryFile
	hooks
}

// DecRef implements memmap.File.DecRef.
func (f *watchedFile) DecRef(fr memmap.FileRange) {
	f.hit("DecRef", fr)
	f.MemoryFile.DecRef(fr)
}

// mappableOn is a testMappable whose pages are in a watchedFile.
type mappableOn struct {
	*testMappable
	file *watchedFile
}

// Translate implements memmap.Mappable.
func (m mappableOn) Translate(ctx context.Context, required, optional memmap.MappableRange, at hostarch.AccessType) ([]memmap.Translation, error) {
	ts, err := m.testMappable.Translate(ctx, required, optional, at)
	for i := range ts {
		ts[i].File = m.file
	}
	return ts, err
}

// The old pages come back together with the vmas. Between that and the carrying out of
// invalidations that came meanwhile, nobody may get to them: the file was told that
// they are out of reach.
func TestRestoredPagesAreInvalidatedBeforeTheThaw(t *testing.T) {
	m := newTrapMM(t)
	file := &watchedFile{MemoryFile: m.mf}
	file.hooks.t, file.hooks.name = t, "watched file"
	old := mappableOn{newTestMappable(t, m.mf, 4*pageSize), file}
	f := newTestMappable(t, m.mf, 4*pageSize)
	m.mustMap(4*pageSize, hostarch.ReadWrite, fixedAt(m.base), func(o *memmap.MMapOpts) {
		sharedFile(old.testMappable, 0)(o)
		o.Mappable = old
	})
	for i := hostarch.Addr(0); i < 4*pageSize; i += pageSize {
		m.mustStore(m.base+i, "old")
	}
	f.fail("Translate", 1, linuxerr.EIO)
	unregistered := f.pauseAt("RemoveMapping", 1)
	failing := spawn(t, "mmap", func() error {
		if _, err := m.mmap(4*pageSize, hostarch.ReadWrite, fixedAt(m.base), sharedFile(f, 0), populated, required); !linuxerr.Equals(linuxerr.EIO, err) {
			return fmt.Errorf("want EIO, got %w", err)
		}
		return nil
	})
	unregistered.wait()
	// Two invalidations: the first page, and then the last one.
	old.set.replace(memmap.MappableRange{End: pageSize})
	old.set.replace(memmap.MappableRange{Start: 3 * pageSize, End: 4 * pageSize})
	old.set.write(3*pageSize, []byte("new"))

	// Stop where the page that the first one names is dropped. A thread that wants
	// the last page may have to wait, or find what is new, but not what was old.
	dropped := file.pauseAt("DecRef", 1)
	unregistered.resume()
	dropped.wait()
	read := spawn(t, "reading the last page", func() error { return m.expect(m.base+3*pageSize, "new") })
	read.mustBlock()
	dropped.resume()
	failing.mustSucceed()
	read.mustSucceed()
	m.check()
}
