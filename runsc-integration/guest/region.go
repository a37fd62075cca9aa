package main

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	regionPages = 64

	// What a page of a region may begin with: nothing yet (fresh anonymous memory), what its
	// writer stored, or what stands in the file. Anything else is a page that belongs elsewhere.
	anonMark = 0x616e6f6e616e6f6e
	fileMark = 0x66696c6566696c65
)

var pageSize = os.Getpagesize()

// A region is a range of addresses that is mapped, readable and writable from its creation on.
// One writer replaces it, or parts of it; it never unmaps. So any reader that finds an address of
// it unmapped or inaccessible has seen a gap.
type region struct {
	mem   []byte
	file  int // as long as the region, every page marked
	kinds kinds
	rand  *rand.Rand
}

// kinds are the replacements that are not made unless asked for.
type kinds struct {
	moves bool // mappings are moved over the region
	gaps  bool // before it is replaced, a part is made inaccessible: what must be found
}

func newRegion(seed uint64, kinds kinds) (*region, error) {
	size := regionPages * pageSize
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("mmap of a region: %w", err)
	}
	fd, err := unix.MemfdCreate("region", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	page := make([]byte, pageSize)
	binary.NativeEndian.PutUint64(page, fileMark)
	for i := range regionPages {
		if _, err := unix.Pwrite(fd, page, int64(i*pageSize)); err != nil {
			return nil, fmt.Errorf("filling the region's file: %w", err)
		}
	}
	return &region{mem: mem, file: fd, kinds: kinds, rand: rand.New(rand.NewPCG(seed, 0))}, nil
}

// replaceOnce puts one new mapping over all of the region or over a part of it. A part splits the
// mapping at both edges, a mapping of the same kind as its neighbours merges with them.
func (r *region) replaceOnce() error {
	first, pages := 0, regionPages
	if r.rand.IntN(4) != 0 {
		first = r.rand.IntN(regionPages)
		pages = 1 + r.rand.IntN(regionPages-first)
	}
	part := r.mem[first*pageSize : (first+pages)*pageSize]
	if r.kinds.gaps {
		if err := unix.Mprotect(part, unix.PROT_NONE); err != nil {
			return fmt.Errorf("mprotect: %w", err)
		}
	}
	switch kind := r.rand.IntN(5); {
	case kind == 0:
		return mapFixed(part, unix.MAP_PRIVATE, r.file, int64(first*pageSize))
	case kind == 1:
		return mapFixed(part, unix.MAP_SHARED, r.file, int64(first*pageSize))
	case kind == 2:
		return mapFixed(part, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE, -1, 0)
	case kind == 3 && r.kinds.moves:
		return moveOver(part)
	default:
		if err := mapFixed(part, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS, -1, 0); err != nil {
			return err
		}
		// Touch it, so that the next replacement has pages to take away.
		binary.NativeEndian.PutUint64(part, anonMark)
		return nil
	}
}

// mapFixed maps over part. The memory is not Go's, so the garbage collector does not care.
func mapFixed(part []byte, flags, fd int, offset int64) error {
	at := unsafe.Pointer(&part[0])
	got, err := unix.MmapPtr(fd, offset, at, uintptr(len(part)),
		unix.PROT_READ|unix.PROT_WRITE, flags|unix.MAP_FIXED)
	if err != nil {
		return fmt.Errorf("mmap(MAP_FIXED) of %d pages: %w", len(part)/pageSize, err)
	}
	if got != at {
		return fmt.Errorf("mmap(MAP_FIXED) at %p answered %p", at, got)
	}
	return nil
}

// moveOver replaces part by a mapping that was made elsewhere and is moved onto it.
func moveOver(part []byte) error {
	size := uintptr(len(part))
	from, err := unix.MmapPtr(-1, 0, nil, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return fmt.Errorf("mmap of a range to move: %w", err)
	}
	*(*uint64)(from) = anonMark
	at := unsafe.Pointer(&part[0])
	if _, err := unix.MremapPtr(from, size, at, size, unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED); err != nil {
		return fmt.Errorf("mremap(MREMAP_FIXED): %w", err)
	}
	return nil
}

// marked says whether a page may begin with mark.
func marked(mark uint64) bool {
	return mark == 0 || mark == anonMark || mark == fileMark
}
