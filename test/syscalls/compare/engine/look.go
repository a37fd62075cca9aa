package main

import (
	"fmt"
	"math/bits"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/compare/program"
	"sentrymm/test/syscalls/compare/trace"
)

// look returns the views that changed: all of all processes, or only the mappings of whoever did something.
// Mappings of the others are looked at in the end: nobody but themselves changes them.
func (s *session) look(all bool, who *actor) ([]trace.View, error) {
	var changed []trace.View
	for _, p := range s.alive() {
		did := who != nil && who.process == p
		if !all && !did {
			continue
		}
		views, err := s.viewsOf(p, did || s.last || len(p.seen) == 0, all)
		if err != nil {
			return nil, err
		}
		for _, v := range views {
			text := strings.Join(v.Lines, "\n")
			if before, looked := p.seen[v.Aspect]; !looked || before != text {
				p.seen[v.Aspect] = text
				changed = append(changed, v)
			}
		}
	}
	return changed, nil
}

// viewsOf are views of a process: of its mappings, or of what it finds there, or of both and of their sizes.
func (s *session) viewsOf(p *process, mappings, contents bool) ([]trace.View, error) {
	var views []trace.View
	for _, look := range []struct {
		aspect string
		wanted bool
		lines  func(*process) ([]string, error)
	}{
		{trace.Maps, mappings, s.maps}, {trace.Pages, contents, s.pages},
		{trace.Smaps, mappings && contents, s.smaps}, {trace.Usage, mappings && contents, s.usage},
	} {
		if !look.wanted {
			continue
		}
		lines, err := look.lines(p)
		if err != nil {
			return nil, fmt.Errorf("%s of %v: %w", look.aspect, p.name, err)
		}
		views = append(views, trace.View{Process: p.name.String(), Aspect: look.aspect, Lines: lines})
	}
	return views, nil
}

// A part is a range of memory that is the program's, with a name for each address in it and for its
// end.
type part struct {
	region
	where func(uintptr) string
}

func (s *session) parts(p *process) []part {
	all := []part{{region{start: arenaBase, length: arenaEnd - arenaBase}, p.where}}
	if s.usesHeap {
		all = append(all, part{region{start: p.heap, length: heapSpace}, p.where})
	}
	for i, r := range p.slots {
		if r.length != 0 {
			all = append(all, part{r, func(addr uintptr) string { return r.where(i, addr) }})
		}
	}
	return all
}

func (s *session) maps(p *process) ([]string, error) {
	data, err := p.proc("maps")
	if err != nil {
		return nil, err
	}
	lines, err := parseMaps(data)
	if err != nil {
		return nil, err
	}
	p.lines = lines
	var shown []string
	for _, part := range s.parts(p) {
		for _, l := range lines {
			if l, inside := l.clip(part.start, part.end()); inside {
				shown = append(shown, part.show(l))
			}
		}
	}
	return shown, nil
}

func (p part) show(l line) string {
	text := fmt.Sprintf("%s-%s %s %d", p.where(l.start), p.where(l.end), l.perms, l.offset/pageSize)
	if strings.HasPrefix(l.name, "/") {
		l.name = filepath.Base(l.name)
	}
	if l.name != "" {
		text += " " + l.name
	}
	return text
}

// pages reads every interesting page, and says what is there in ranges of the same.
func (s *session) pages(p *process) ([]string, error) {
	var lines []string
	for _, part := range s.parts(p) {
		addresses := part.interesting()
		contents, err := s.contents(p, addresses)
		if err != nil {
			return nil, err
		}
		var first uintptr
		last := ""
		for i, addr := range addresses {
			found := contents[i]
			if found == last && addresses[i-1]+pageSize == addr {
				lines[len(lines)-1] = part.where(first) + "-" + part.where(addr+pageSize) + " " + found
				continue
			}
			first, last = addr, found
			lines = append(lines, part.where(addr)+"-"+part.where(addr+pageSize)+" "+found)
		}
	}
	return lines, nil
}

// contents is what the pages at the addresses hold. Faults cost most of the time, so a page that was found to be
// unmapped is not read again before something is mapped there, but for the end of the program.
func (s *session) contents(p *process, addresses []uintptr) ([]string, error) {
	contents := make([]string, len(addresses))
	a := p.leader
	a.request(opNothing, 0)
	var asked []int
	for i, addr := range addresses {
		if contents[i] = p.absent[addr]; contents[i] != "" && !s.last && !isMapped(p.lines, addr) {
			continue
		}
		a.addresses[len(asked)] = addr
		asked = append(asked, i)
	}
	a.pages = uintptr(len(asked))
	if len(asked) == 0 {
		return contents, nil
	}
	a.ask()
	if _, err := a.wait(); err != nil {
		return nil, err
	}
	for n, i := range asked {
		addr := addresses[i]
		contents[i] = p.content(addr, a.found[n], a.digests[n])
		delete(p.absent, addr)
		if a.found[n].signo != 0 && !isMapped(p.lines, addr) {
			p.absent[addr] = contents[i]
		}
	}
	return contents, nil
}

// isMapped reports whether one of the lines is about the address.
func isMapped(lines []line, addr uintptr) bool {
	i := sort.Search(len(lines), func(i int) bool { return lines[i].end > addr })
	return i < len(lines) && lines[i].start <= addr
}

// interesting are the pages to read: those of the arena that programs use most, and the first ones of
// other parts.
func (p part) interesting() []uintptr {
	var all []uintptr
	if p.start == arenaBase {
		for _, page := range program.Interesting() {
			all = append(all, arenaBase+uintptr(page)*pageSize)
		}
		return all
	}
	if p.opaque {
		return nil
	}
	for addr := p.start; addr < min(p.end(), p.start+heapSpace); addr += pageSize {
		all = append(all, addr)
	}
	return all
}

// content is what a page holds: one byte if it holds that all over, its first bytes and a digest if
// not, or the signal.
func (p *process) content(addr uintptr, found answer, digest uintptr) string {
	if found.signo != 0 {
		text := signalName(found)
		if found.access != addr {
			text += " at " + p.where(found.access)
		}
		return text
	}
	if b := found.value & 0xff; digest == uniform[b] {
		return fmt.Sprintf("%02x", b)
	}
	return fmt.Sprintf("%02x#%08x", found.value&0xff, uint32(digest^digest>>32))
}

// uniform are the digests of pages that hold one byte all over.
var uniform = func() (digests [256]uintptr) {
	for b := range digests {
		word := uint64(b) * 0x0101010101010101
		var digest uint64
		for range pageSize / 8 {
			digest = bits.RotateLeft64(digest, 5) + word
		}
		digests[b] = uintptr(digest)
	}
	return digests
}()

// signalName is signal and code as in "SIGSEGV/MAPERR".
func signalName(a answer) string {
	names := map[unix.Signal]map[int32]string{
		unix.SIGSEGV: {1: "MAPERR", 2: "ACCERR", 3: "BNDERR", 4: "PKUERR", 0x80: "KERNEL"},
		unix.SIGBUS:  {1: "ADRALN", 2: "ADRERR", 3: "OBJERR", 0x80: "KERNEL"},
	}
	code, known := names[unix.Signal(a.signo)][int32(a.code)]
	if !known {
		code = fmt.Sprint(int32(a.code))
	}
	return unix.SignalName(unix.Signal(a.signo)) + "/" + code
}

// smaps are the flags of mappings, and their sizes if they are not what maps says.
func (s *session) smaps(p *process) ([]string, error) {
	data, err := p.proc("smaps")
	if err != nil {
		return nil, err
	}
	parts := s.parts(p)
	shown := make([][]string, len(parts)) // like maps, part by part
	var entry line
	for text := range strings.Lines(string(data)) {
		name, value, isField := strings.Cut(text, ":")
		if !isField || strings.Contains(name, " ") {
			if entry, err = parseLine(text); err != nil {
				return nil, err
			}
			continue
		}
		value = strings.Join(strings.Fields(value), ",")
		for i, part := range parts {
			l, inside := entry.clip(part.start, part.end())
			switch {
			case !inside:
			case name == "Size" && l == entry && value != fmt.Sprintf("%d,kB", (l.end-l.start)>>10),
				name == "KernelPageSize" && value != "4,kB",
				name == "VmFlags":
				shown[i] = append(shown[i], fmt.Sprintf("%s-%s %s:%s", part.where(l.start), part.where(l.end), name, value))
			}
		}
	}
	return slices.Concat(shown...), nil
}

func (s *session) usage(p *process) ([]string, error) {
	u, err := p.usage()
	if err != nil {
		return nil, err
	}
	return []string{
		fmt.Sprintf("VmSize %+d kB", (u.size-p.base.size)>>10),
		fmt.Sprintf("VmData %+d kB", (u.data-p.base.data)>>10),
	}, nil
}
