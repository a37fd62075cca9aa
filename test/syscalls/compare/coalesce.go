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
	// What reaches beyond the heap is the heap's, all of it, once it is one.
	if strings.HasSuffix(first, " 0 [heap]") && strings.HasSuffix(second, " 0") {
		second += " [heap]"
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
		want := int64(to-from) / program.PageSize
		if strings.HasPrefix(a[3], "[") {
			want = 0 // the heap's
		}
		if errors.Join(errFrom, errTo, errA, errB) != nil || a[3] != b[3] || int64(offsetB-offsetA) != want {
			return "", false
		}
	}
	return fmt.Sprintf("%s-%s %s", startA, endB, strings.Join(a[1:], " ")), true
}
