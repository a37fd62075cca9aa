package main

import (
	"fmt"
	"strings"

	"sentrymm/test/syscalls/compare/program"
)

// outline is a program without what often differs between two that show the same: its addresses.
func outline(p *program.Program) string {
	var b strings.Builder
	for _, s := range p.Steps {
		b.WriteString(s.Op.Name)
		for i, kind := range s.Op.Args {
			if kind == program.KindMap || kind == program.KindAdvice || kind == program.KindHandle || kind == program.KindRemap {
				b.WriteString(" " + kind.Text(s.Args[i]))
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// comment turns text into comments of a program.
func comment(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString("# " + line)
	}
	return b.String()
}

// narrate is a program with the results of its steps, up to a difference if there was one.
func narrate(p *program.Program, d *difference) string {
	var b strings.Builder
	fmt.Fprintf(&b, "program %d\n", p.Seed)
	for i, s := range p.Steps {
		if d != nil && i < len(d.expected)-1 {
			fmt.Fprintf(&b, "%4d %v: %s\n", i+1, s, d.expected[i+1].result)
		} else {
			fmt.Fprintf(&b, "%4d %v\n", i+1, s)
		}
	}
	return b.String()
}
