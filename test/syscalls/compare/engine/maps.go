package main

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// A line is one of /proc/[pid]/maps.
type line struct {
	start, end uintptr
	perms      string
	offset     uintptr
	name       string
	file       bool // something that has an inode
}

// parseMaps parses /proc/[pid]/maps. It is called after each step, so it does not use Sscanf.
func parseMaps(data []byte) ([]line, error) {
	var lines []line
	for text := range bytes.Lines(data) {
		l, err := parseLine(string(text))
		if err != nil {
			return nil, err
		}
		lines = append(lines, l)
	}
	return lines, nil
}

func parseLine(text string) (l line, err error) {
	// Five fields, then blanks, then a name that may hold blanks itself.
	rest := strings.TrimRight(text, "\n")
	var fields [5]string
	for i := range fields {
		fields[i], rest, _ = strings.Cut(rest, " ")
	}
	start, end, _ := strings.Cut(fields[0], "-")
	for _, number := range []struct {
		to   *uintptr
		text string
	}{{&l.start, start}, {&l.end, end}, {&l.offset, fields[2]}} {
		v, err := strconv.ParseUint(number.text, 16, 64)
		if err != nil {
			return l, fmt.Errorf("a line of maps that cannot be read: %q: %w", text, err)
		}
		*number.to = uintptr(v)
	}
	l.perms, l.file = fields[1], fields[4] != "0"
	l.name = strings.Trim(rest, " ")
	return l, nil
}

// clip cuts off what lies outside of a range. It returns false if nothing is left.
func (l line) clip(start, end uintptr) (line, bool) {
	if l.end <= start || l.start >= end {
		return l, false
	}
	if l.start < start {
		if l.file {
			l.offset += start - l.start
		}
		l.start = start
	}
	l.end = min(l.end, end)
	return l, true
}
