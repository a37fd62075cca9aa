package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"sentrymm/test/syscalls/compare/program"
	"sentrymm/test/syscalls/compare/trace"
)

// agree reports whether the lines of a view agree. For mappings, Linux may show two lines where the other
// shows one: it does not merge mappings whose anonymous pages have different histories. It must not be the
// other way round.
func agree(aspect string, native, other []string) bool {
	if slices.Equal(native, other) {
		return true
	}
	if aspect != trace.Maps && aspect != trace.Smaps {
		return false
	}
	for len(native) > 0 && len(other) > 0 {
		line := native[0]
		native = native[1:]
		for line != other[0] {
			if len(native) == 0 {
				return false
			}
			joined, ok := join(line, native[0])
			if !ok {
				return false
			}
			line, native = joined, native[1:]
		}
		other = other[1:]
	}
	return len(native) == 0 && len(other) == 0
}

// join makes one line of maps or smaps of two that lie next to each other and agree in everything else.
func join(first, second string) (string, bool) {
	// Whatever touches the heap is called so, but what is behind it only if it is joined with it.
	bareFirst, heapFirst := strings.CutSuffix(first, heapName)
	bareSecond, heapSecond := strings.CutSuffix(second, heapName)
	if heapFirst || heapSecond {
		line, ok := join(bareFirst, bareSecond)
		return line + heapName, ok
	}
	a, b := strings.SplitN(first, " ", 4), strings.SplitN(second, " ", 4)
	startA, endA := program.CutRange(a[0])
	startB, endB := program.CutRange(b[0])
	if endA == "" || endA != startB || len(a) != len(b) || a[1] != b[1] {
		return "", false
	}
	if len(a) == 4 {
		// The line of a file in maps: its offset goes on.
		from, errFrom := program.ParseAddress(startA)
		to, errTo := program.ParseAddress(endA)
		offsetA, errA := strconv.Atoi(a[2])
		offsetB, errB := strconv.Atoi(b[2])
		if errors.Join(errFrom, errTo, errA, errB) != nil || a[3] != b[3] || int64(offsetB-offsetA) != int64(to-from)/program.PageSize {
			return "", false
		}
	}
	return fmt.Sprintf("%s-%s %s", startA, endB, strings.Join(a[1:], " ")), true
}

const heapName = " [heap]"

// apart reports whether a step fails natively because Linux has not joined mappings that are one in the other
// place: mremap moves several or makes them longer only where it says so. From there on the two do not compare.
func apart(s program.Step, native, other []string, result string) bool {
	if s.Op != program.Mremap || result != "EFAULT" {
		return false
	}
	start := program.Address(s.Args[0])
	end := start + program.Address(s.Args[1])
	inside := borders(other)
	for border := range borders(native) {
		if border > start && border < end && !inside[border] {
			return true
		}
	}
	return false
}

// borders are where the lines of maps end.
func borders(lines []string) map[program.Address]bool {
	all := map[program.Address]bool{}
	for _, line := range lines {
		where, _, _ := strings.Cut(line, " ")
		_, end := program.CutRange(where)
		if a, err := program.ParseAddress(end); err == nil {
			all[a] = true
		}
	}
	return all
}
