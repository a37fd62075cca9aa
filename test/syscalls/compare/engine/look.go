package main

import (
	"fmt"
	"math/bits"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/compare/program"
	"sentrymm/test/syscalls/compare/trace"
)

// look returns the views that changed: all of all processes, or only the mappings of whoever did
// something.
func (s *session) look(all bool, who *actor) ([]trace.View, error) {
	var changed []trace.View
	for _, p := range s.alive() {
		if !all && (who == nil || who.process != p) {
			continue
		}
		views, err := s.viewsOf(p, all)
		if err != nil {
			return nil, err
		}
		for _, v := range views {
			if text := strings.Join(v.Lines, "\n"); p.seen[v.Aspect] != text {
				p.seen[v.Aspect] = text
				changed = append(changed, v)
			}
		}
	}
	return changed, nil
}

func (s *session) viewsOf(p *process, all bool) ([]trace.View, error) {
	var views []trace.View
	looks := []struct {
		aspect string
		lines  func(*process) ([]string, error)
	}{{trace.Maps, s.maps}, {trace.Pages, s.pages}, {trace.Smaps, s.smaps}, {trace.Usage, s.usage}}
	if !all {
		looks = looks[:1]
	}
	for _, look := range looks {
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
	a := p.leader
	var lines []string
	for _, part := range s.parts(p) {
		addresses := part.interesting()
		a.request(opNothing, 0)
		a.pages = uintptr(copy(a.addresses[:], addresses))
		a.ask()
		if _, err := a.wait(); err != nil {
			return nil, err
		}
		var first uintptr
		last := ""
		for i, addr := range addresses {
			found := p.content(addr, a.found[i], a.digests[i])
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

// smaps are the flags of mappings in the arena, and their sizes if they are not what maps says.
func (s *session) smaps(p *process) ([]string, error) {
	data, err := p.proc("smaps")
	if err != nil {
		return nil, err
	}
	var shown []string
	var entry line
	inside, cut := false, false // whether entry is in the arena, and reaches beyond it
	for text := range strings.Lines(string(data)) {
		name, value, isField := strings.Cut(text, ":")
		if !isField || strings.Contains(name, " ") {
			if entry, err = parseLine(text); err != nil {
				return nil, err
			}
			whole := entry
			entry, inside = entry.clip(arenaBase, arenaEnd)
			cut = entry != whole
			continue
		}
		value = strings.Join(strings.Fields(value), ",")
		switch {
		case !inside:
		case name == "Size" && !cut && value != fmt.Sprintf("%d,kB", (entry.end-entry.start)>>10),
			name == "KernelPageSize" && value != "4,kB",
			name == "VmFlags":
			shown = append(shown, fmt.Sprintf("%s-%s %s:%s", p.where(entry.start), p.where(entry.end), name, value))
		}
	}
	return shown, nil
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
