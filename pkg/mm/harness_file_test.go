package mm

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
	"gvisor.dev/gvisor/pkg/sentry/pgalloc"
)

// testFile is a memory file on a memfd.
type testFile struct {
	t  testing.TB
	mf *pgalloc.MemoryFile
}

// newTestFile returns a memory file. The test fails if pages of it are still in
// use at its end.
func newTestFile(t testing.TB, mods ...func(*pgalloc.MemoryFileOpts)) *pgalloc.MemoryFile {
	t.Helper()
	fd, err := unix.MemfdCreate("mm-test", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatalf("memfd_create: %v", err)
	}
	opts := pgalloc.MemoryFileOpts{DisableMemoryAccounting: true, DisableIMAWorkAround: true}
	for _, mod := range mods {
		mod(&opts)
	}
	mf, err := pgalloc.NewMemoryFile(os.NewFile(uintptr(fd), "mm-test"), opts)
	if err != nil {
		t.Fatalf("NewMemoryFile: %v", err)
	}
	w := worldOf(t)
	mf.MarkSavable()
	w.name(mf, "file")
	w.mu.Lock()
	w.files = append(w.files, &testFile{t, mf})
	w.mu.Unlock()
	return mf
}

// withHugePages is an option of newTestFile.
func withHugePages(opts *pgalloc.MemoryFileOpts) {
	opts.ExpectHugepages = true
}

func (f *testFile) takeDown() {
	for _, r := range fileRefs(f.mf) {
		f.t.Errorf("pages %v of the memory file have %d references at the end of the test", r.FileRange, r.refs)
	}
	f.mf.Destroy()
}

// fileRefCount is the reference count of a range of pages.
type fileRefCount struct {
	memmap.FileRange
	refs uint64
}

// unfreeLine is how a MemoryFile's String shows an allocated range.
var unfreeLine = regexp.MustCompile(`\[(0x[0-9a-f]+), (0x[0-9a-f]+)\) => \{(\d+)\}`)

// fileRefs returns the reference counts of all pages in use, in order, with equal
// neighbours merged. MemoryFile tells nobody but its debug output.
func fileRefs(mf *pgalloc.MemoryFile) []fileRefCount {
	var all []fileRefCount
	for _, m := range unfreeLine.FindAllStringSubmatch(mf.String(), -1) {
		start, _ := strconv.ParseUint(m[1], 0, 64)
		end, _ := strconv.ParseUint(m[2], 0, 64)
		refs, _ := strconv.ParseUint(m[3], 0, 64)
		if refs != 0 {
			all = append(all, fileRefCount{memmap.FileRange{Start: start, End: end}, refs})
		}
	}
	// Two sets, for small and huge pages, were printed one behind the other.
	slices.SortFunc(all, func(a, b fileRefCount) int { return int(a.Start>>12) - int(b.Start>>12) })
	merged := all[:0]
	for _, r := range all {
		if n := len(merged); n != 0 && merged[n-1].End == r.Start && merged[n-1].refs == r.refs {
			merged[n-1].End = r.End
			continue
		}
		merged = append(merged, r)
	}
	return merged
}

// refsOf returns the number of references on the page at off.
func refsOf(mf *pgalloc.MemoryFile, off uint64) uint64 {
	for _, r := range fileRefs(mf) {
		if r.Contains(off) {
			return r.refs
		}
	}
	return 0
}

// unreferenced returns the first part of fr that nobody has a reference on.
func unreferenced(mf *pgalloc.MemoryFile, fr memmap.FileRange) (memmap.FileRange, bool) {
	for _, r := range fileRefs(mf) {
		if r.Start > fr.Start {
			break
		}
		fr.Start = max(fr.Start, min(fr.End, r.End))
	}
	return fr, fr.Length() != 0
}

// usedPages returns how many bytes of mf are allocated.
func usedPages(mf *pgalloc.MemoryFile) uint64 {
	var n uint64
	for _, r := range fileRefs(mf) {
		n += r.Length()
	}
	return n
}

// fileBytes returns the contents of fr.
func fileBytes(t testing.TB, f memmap.File, fr memmap.FileRange) []byte {
	t.Helper()
	bs, err := f.MapInternal(fr, hostarch.Read)
	if err != nil {
		t.Fatalf("MapInternal(%v): %v", fr, err)
	}
	var out bytes.Buffer
	for ; !bs.IsEmpty(); bs = bs.Tail() {
		out.Write(bs.Head().ToSlice())
	}
	return out.Bytes()
}

// fillFile writes data at off.
func fillFile(t testing.TB, f memmap.File, off uint64, data []byte) {
	t.Helper()
	fr := memmap.FileRange{Start: off, End: off + uint64(len(data))}
	bs, err := f.MapInternal(fr, hostarch.Write)
	if err != nil {
		t.Fatalf("MapInternal(%v): %v", fr, err)
	}
	for ; !bs.IsEmpty(); bs = bs.Tail() {
		data = data[copy(bs.Head().ToSlice(), data):]
	}
}

// fileString describes a range of a file for messages.
func fileString(w *world, f memmap.File, fr memmap.FileRange) string {
	return fmt.Sprintf("%s%v", w.nameOf(f), fr)
}
