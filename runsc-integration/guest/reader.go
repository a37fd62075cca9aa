package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A look reads a whole region in one of the ways a program has, and returns an error when it found
// an address of it unmapped or inaccessible, or a page with a mark that no writer sets.
type look struct {
	name string
	at   func(*region) error
}

var looks = []look{
	{"loads", loads},
	{"write(2)", throughWrite},
	{"process_vm_readv(2)", throughReadv},
	{"/proc/self/maps", throughMaps},
}

// loads reads the first word of every page with the processor.
func loads(r *region) (err error) {
	// A fault becomes a panic of this goroutine that names the address, not the end of the program.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			fault, ok := p.(interface{ Addr() uintptr })
			if !ok {
				panic(p)
			}
			err = fmt.Errorf("a load faulted at %#x, page %d", fault.Addr(), (fault.Addr()-address(r.mem))/uintptr(pageSize))
		}
	}()
	for page := range regionPages {
		if mark := binary.NativeEndian.Uint64(r.mem[page*pageSize:]); !marked(mark) {
			return fmt.Errorf("page %d begins with %#x", page, mark)
		}
	}
	return nil
}

// throughWrite has the kernel read the region: write(2) to a file answers EFAULT, or writes less
// than it was given, where it meets an unmapped address.
func throughWrite(r *region) error {
	fd, err := unix.MemfdCreate("copy", unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	n, err := unix.Pwrite(fd, r.mem, 0)
	return whole("write(2)", n, err, r)
}

// throughReadv has the kernel read the region as another process's memory.
func throughReadv(r *region) error {
	copied := make([]byte, len(r.mem))
	local := []unix.Iovec{{Base: &copied[0], Len: uint64(len(copied))}}
	remote := []unix.RemoteIovec{{Base: address(r.mem), Len: len(r.mem)}}
	n, err := unix.ProcessVMReadv(os.Getpid(), local, remote, 0)
	if err := whole("process_vm_readv(2)", n, err, r); err != nil {
		return err
	}
	for page := range regionPages {
		if mark := binary.NativeEndian.Uint64(copied[page*pageSize:]); !marked(mark) {
			return fmt.Errorf("process_vm_readv(2): page %d begins with %#x", page, mark)
		}
	}
	return nil
}

func whole(call string, n int, err error, r *region) error {
	if err != nil {
		return fmt.Errorf("%s: %w", call, err)
	}
	if n != len(r.mem) {
		return fmt.Errorf("%s read %d of %d bytes", call, n, len(r.mem))
	}
	return nil
}

// throughMaps reads /proc/self/maps, where accessible ranges must follow each other over the whole region.
func throughMaps(r *region) error {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return err
	}
	next, end := address(r.mem), address(r.mem)+uintptr(len(r.mem))
	for lines := bufio.NewScanner(bytes.NewReader(maps)); lines.Scan() && next < end; {
		var start, stop uintptr
		var access string
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &start, &stop, &access); err != nil {
			return fmt.Errorf("/proc/self/maps: line %q: %w", lines.Text(), err)
		}
		if stop <= next {
			continue
		}
		if start > next || !strings.HasPrefix(access, "rw") {
			break
		}
		next = stop
	}
	if next < end {
		return fmt.Errorf("/proc/self/maps: nothing at %#x, page %d:\n%s", next, (next-address(r.mem))/uintptr(pageSize), maps)
	}
	return nil
}

func address(mem []byte) uintptr { return uintptr(unsafe.Pointer(&mem[0])) }
