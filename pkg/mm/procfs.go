package mm

import (
	"bytes"
	"fmt"
	"math/bits"
	"strconv"
	"strings"

	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
)

// MapsCallbackFunc is given one line of /proc/[pid]/maps: private is "p" or
// "s", offset is in bytes, and path is what the last column shows, if anything.
type MapsCallbackFunc func(start, end hostarch.Addr, permissions hostarch.AccessType, private string, offset uint64, devMajor, devMinor uint32, inode uint64, path string)

// vsyscallRange is where x86-64 Linux has its vsyscall page. The sentry emulates
// it, so it is shown, as the last mapping, although there is no vma.
var vsyscallRange = hostarch.AddrRange{Start: 0xffffffffff600000, End: 0xffffffffff601000}

// vsyscallVMA describes the vsyscall page as if it were mapped.
var vsyscallVMA = vma{
	realPerms:      hostarch.ReadExecute,
	effectivePerms: hostarch.ReadExecute,
	private:        true,
	name:           "[vsyscall]",
}

// MapsCallbackFuncForBuffer returns a callback that appends the line to buf as
// the text of /proc/[pid]/maps. It makes room for most lines at once.
func (mm *MemoryManager) MapsCallbackFuncForBuffer(buf *bytes.Buffer) MapsCallbackFunc {
	// Bytes of a line without a name, which most lines are where there are very many. Room that is not used costs garbage collections, and
	// so the slowest readings.
	const nameless = 56
	buf.Grow((mm.vmas.Snapshot().Len() + 2) * nameless)
	return mapsLines(buf)
}

// mapsLines returns a callback that appends lines to buf. It does without fmt, which takes a microsecond
// for each: programs with ten thousands of mappings read them.
func mapsLines(buf *bytes.Buffer) MapsCallbackFunc {
	return func(start, end hostarch.Addr, permissions hostarch.AccessType, private string, offset uint64, devMajor, devMinor uint32, inode uint64, path string) {
		const room = 128 // for all but the path
		buf.Grow(room + len(path))
		b := buf.AvailableBuffer()
		b = append(appendHex(b, uint64(start), 8), '-')
		b = append(appendHex(b, uint64(end), 8), ' ')
		b = append(appendPerms(b, permissions), private...)
		b = append(appendHex(append(b, ' '), offset, 8), ' ')
		b = append(appendHex(b, uint64(devMajor), 2), ':')
		b = append(appendHex(b, uint64(devMinor), 2), ' ')
		b = append(strconv.AppendUint(b, inode, 10), ' ')
		if path != "" {
			// fs/proc/task_mmu.c: seq_setwidth(m, 25 + sizeof(void *) * 6 - 1)
			// before, seq_pad(m, ' ') after, which adds one blank at least.
			const width = 25 + 8*6 - 1
			for b = append(b, ' '); len(b) < width+1; {
				b = append(b, ' ')
			}
			// As seq_path(m, path, "\n") does, lest a file's name make a line of
			// its own.
			b = append(b, strings.ReplaceAll(path, "\n", `\012`)...)
		}
		buf.Write(append(b, '\n'))
	}
}

// appendHex appends v in hexadecimal, with as many digits as given at least.
func appendHex(b []byte, v uint64, digits int) []byte {
	n := max(digits, (bits.Len64(v)+3)/4)
	b = append(b, "0000000000000000"[:n]...)
	for i := len(b) - 1; v != 0; i-- {
		b[i] = "0123456789abcdef"[v&15]
		v >>= 4
	}
	return b
}

// appendPerms appends the first three letters of the column of permissions.
func appendPerms(b []byte, at hostarch.AccessType) []byte {
	letter := func(set bool, c byte) byte {
		if set {
			return c
		}
		return '-'
	}
	return append(b, letter(at.Read, 'r'), letter(at.Write, 'w'), letter(at.Execute, 'x'))
}

// ReadMapsDataInto calls fn for each line of /proc/[pid]/maps, in address order.
// The lines are the address space as it was at one point in time during the
// call. It takes no lock and blocks nobody, however long fn takes.
func (mm *MemoryManager) ReadMapsDataInto(ctx context.Context, fn MapsCallbackFunc) {
	mm.mapsReads.note()
	defer mm.letFaultsRun()
	root, leave := mm.enter()
	defer leave(ctx)
	heap := mm.heap()
	for r, v := range root.All() {
		v.show(ctx, addrRange(r), v.off, heap, fn)
	}
	vsyscallVMA.show(ctx, vsyscallRange, 0, heap, fn)
}

// show calls fn with the line of v in /proc/[pid]/maps. It is mapped at ar, from
// offset off on.
//
// Preconditions: v.id cannot be released meanwhile; see enter.
func (v *vma) show(ctx context.Context, ar hostarch.AddrRange, off uint64, heap hostarch.AddrRange, fn MapsCallbackFunc) {
	if _, special := v.mappable.(*SpecialMappable); v.mappable == nil || special {
		// Linux shows the offset of vmas that have a vm_file.
		off = 0
	}
	sharing := "s"
	if v.private {
		sharing = "p"
	}
	// A device number, as gVisor packs it, has 20 bits for the minor.
	const minorBits = 20
	var dev, ino uint64
	path := v.name
	if v.id == nil && ar.Start < heap.End && ar.End > heap.Start {
		path = "[heap]"
	}
	if v.id != nil {
		dev, ino = v.id.DeviceID(), v.id.InodeID()
		if path == "" {
			path = v.id.MappedName(ctx)
		}
	}
	fn(ar.Start, ar.End, v.realPerms, sharing, off, uint32(dev>>minorBits), uint32(dev%(1<<minorBits)), ino, path)
}

// ReadSmapsDataInto appends the text of /proc/[pid]/smaps to buf.
//
// Each entry is right about one moment: the mapping and the pages that were
// counted for it belong together. The entries as a whole are not a snapshot;
// they are in order and do not overlap, and a mapping that was there all the
// time is in one of them.
func (mm *MemoryManager) ReadSmapsDataInto(ctx context.Context, buf *bytes.Buffer) {
	for addr, more := hostarch.Addr(0), true; more; {
		addr, more = mm.smapsEntry(ctx, addr, buf)
	}
	vsyscallVMA.show(ctx, vsyscallRange, 0, mm.heap(), mapsLines(buf))
	vsyscallVMA.showUsage(vsyscallRange, residency{}, buf)
}

// smapsEntry appends what /proc/[pid]/smaps says of the first mapping that
// reaches beyond addr. It returns where that ends, or false if there was none.
func (mm *MemoryManager) smapsEntry(ctx context.Context, addr hostarch.Addr, buf *bytes.Buffer) (end hostarch.Addr, more bool) {
	// One grace period for each entry, so that nobody's file stays open until
	// the last line is out.
	_, leave := mm.enter()
	defer leave(ctx)

	// The tree is published and pages of what it replaces are taken out in one
	// section of activeMu, so in another one vmas and pmas agree.
	mm.activeMu.RLock()
	c := mm.vmas.Snapshot().LowerBound(uint64(addr))
	if !c.Valid() {
		mm.activeMu.RUnlock()
		return 0, false
	}
	v, whole := c.Value(), addrRange(c.Range())
	// A vma that has grown or merged meanwhile may begin in what was shown.
	ar := hostarch.AddrRange{Start: max(whole.Start, addr), End: whole.End}
	pages := mm.countResidentLocked(v, ar)
	mm.activeMu.RUnlock()

	v.show(ctx, ar, v.offsetAt(whole.Start, ar.Start), mm.heap(), mapsLines(buf))
	v.showUsage(ar, pages, buf)
	return ar.End, true
}

// residency is how many bytes of a mapping have pages behind them.
type residency struct {
	resident uint64
	private  uint64 // of these, those that are not the file's
	shared   uint64 // of these, those that another process has, too
}

// countResidentLocked counts the pages of v in ar.
//
// Preconditions: mm.activeMu is locked; v is mapped at all of ar.
func (mm *MemoryManager) countResidentLocked(v *vma, ar hostarch.AddrRange) residency {
	n := residency{resident: mm.pmas.Covered(treeRange(ar))}
	if !v.private {
		return n
	}
	// Some pages are the file's and others are copies, which fork may have shared.
	for r, p := range mm.pmas.Within(treeRange(ar)) {
		if !p.private {
			continue
		}
		part := r.Intersect(treeRange(ar))
		n.private += part.Len()
		if p.needCOW {
			n.shared += mm.sharedBytes(p.fileRange(r.Start, addrRange(part)))
		}
	}
	return n
}

// sharedBytes returns how many bytes of fr, in the memory file, have several owners.
//
// Preconditions: a reference is held on all of fr.
func (mm *MemoryManager) sharedBytes(fr memmap.FileRange) (n uint64) {
	for fr.Length() != 0 {
		part, ok := mm.mf.FirstSharedRange(fr)
		if !ok {
			break
		}
		n += part.Length()
		fr.Start = part.End
	}
	return n
}

// showUsage appends what follows a vma's first line in /proc/[pid]/smaps. The
// vma is mapped at ar and has pages there as given.
//
// It simplifies what Linux's smaps_account does. Of a file's pages the sentry knows
// no other mappings, so each is counted as if this were the only one. Of private
// pages it knows whether others have them, not how many: Pss counts half of them,
// which is right after one fork. All pages are taken as referenced, and as dirty if
// they could be. There are no huge pages and there is no swap.
func (v *vma) showUsage(ar hostarch.AddrRange, pages residency, buf *bytes.Buffer) {
	rss := pages.resident
	var clean, dirty [2]uint64 // private and shared
	var locked uint64
	if v.effectivePerms.Write {
		dirty = [...]uint64{rss - pages.shared, pages.shared}
	} else {
		clean = [...]uint64{rss - pages.shared, pages.shared}
	}
	if v.mlockMode != memmap.MLockNone {
		locked = rss
	}
	for _, field := range [...]struct {
		name  string
		bytes uint64
	}{
		{"Size", uint64(ar.Length())},
		{"Rss", rss},
		{"Pss", rss - pages.shared/2},
		{"Shared_Clean", clean[1]},
		{"Shared_Dirty", dirty[1]},
		{"Private_Clean", clean[0]},
		{"Private_Dirty", dirty[0]},
		{"Referenced", rss},
		{"Anonymous", pages.private},
		{"AnonHugePages", 0},
		{"Shared_Hugetlb", 0},
		{"Private_Hugetlb", 0},
		{"Swap", 0},
		{"SwapPss", 0},
		{"KernelPageSize", hostarch.PageSize},
		{"MMUPageSize", hostarch.PageSize},
		{"Locked", locked},
	} {
		fmt.Fprintf(buf, "%-16s%8d kB\n", field.name+":", field.bytes/1024)
	}
	buf.WriteString("VmFlags: ")
	for _, name := range v.flagNames() {
		buf.WriteString(name + " ")
	}
	buf.WriteByte('\n')
}

// flagNames returns the mnemonics of v's flags, in the order of their bits in
// Linux (fs/proc/task_mmu.c:show_smap_vma_flags).
func (v *vma) flagNames() []string {
	flags := [...]struct {
		name string
		set  bool
	}{
		{"rd", v.realPerms.Read},
		{"wr", v.realPerms.Write},
		{"ex", v.realPerms.Execute},
		{"sh", v.canWriteMappable()},
		{"mr", v.maxPerms.Read},
		{"mw", v.maxPerms.Write},
		{"me", v.maxPerms.Execute},
		{"ms", !v.private},
		{"gd", v.growsDown},
		{"lo", v.mlockMode != memmap.MLockNone},
		{"dc", v.dontfork},
		{"lf", v.mlockMode == memmap.MLockLazy},
		{"ac", v.private && v.effectivePerms.Write},
	}
	var names []string
	for _, f := range flags {
		if f.set {
			names = append(names, f.name)
		}
	}
	return names
}
