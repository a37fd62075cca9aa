package main

import (
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"strings"
)

type xmlSuite struct {
	XMLName  xml.Name  `xml:"testsuite"`
	Name     string    `xml:"name,attr"`
	Tests    int       `xml:"tests,attr"`
	Failures int       `xml:"failures,attr"`
	Errors   int       `xml:"errors,attr"`
	Skipped  int       `xml:"skipped,attr"`
	Cases    []xmlCase `xml:"testcase"`
}

type xmlCase struct {
	Class   string   `xml:"classname,attr"`
	Name    string   `xml:"name,attr"`
	Time    string   `xml:"time,attr"`
	Failure *xmlText `xml:"failure"`
	Error   *xmlText `xml:"error"`
	Skipped *xmlText `xml:"skipped"`
}

type xmlText struct {
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

// suite is the report as JUnit has it.
func (r *report) suite() xmlSuite {
	s := xmlSuite{Name: r.name, Failures: r.count("fail"), Skipped: r.count("skip")}
	for _, c := range r.tests {
		x := xmlCase{Class: r.name, Name: c.name, Time: fmt.Sprintf("%.2f", c.seconds)}
		said := strings.ToValidUTF8(c.output.String(), "?")
		switch c.result {
		case "fail":
			x.Failure = &xmlText{"failed", said}
		case "skip":
			x.Skipped = &xmlText{strings.TrimSpace(said), ""}
		case "":
			x.Error = &xmlText{"did not end", said}
			s.Errors++
		}
		s.Cases = append(s.Cases, x)
	}
	if r.err != nil && s.Failures+s.Errors == 0 {
		s.Cases = append(s.Cases, xmlCase{Class: r.name, Name: "test binary", Time: "0",
			Error: &xmlText{r.err.Error(), strings.ToValidUTF8(r.loose.String(), "?")}})
		s.Errors++
	}
	s.Tests = len(s.Cases)
	return s
}

// write writes the report to a file, if there is a name for one.
func (r *report) write(file string) error {
	if file == "" {
		return nil
	}
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	fmt.Fprint(out, xml.Header)
	encoder := xml.NewEncoder(out)
	encoder.Indent("", "  ")
	err = encoder.Encode(struct {
		XMLName xml.Name `xml:"testsuites"`
		Suite   xmlSuite
	}{Suite: r.suite()})
	return errors.Join(err, out.Close())
}
