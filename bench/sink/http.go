package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
)

const (
	headBytesMax = 32 << 10
	bodyBytesMax = 64 << 20
)

var errHead = errors.New("a head that is no HTTP/1.1 request")

// request is one request's head. Its slices live until the next head is read.
type request struct {
	method, path, query []byte
	length              int
	chunked             bool // Transfer-Encoding
	awsChunked          bool // signed or trailing chunks inside the body, as SDKs send with checksums in the trailer
	expects             bool
	closes              bool
	checksumName        []byte // x-amz-checksum-…, echoed
	checksumValue       []byte
}

// readHead reads a head into buffer. io.EOF: the connection ended between two requests.
func readHead(reader *bufio.Reader, buffer []byte) (request, []byte, error) {
	buffer = buffer[:0]
	for {
		line, err := reader.ReadSlice('\n')
		if err != nil {
			if err == io.EOF && len(buffer)+len(line) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return request{}, buffer, err
		}
		buffer = append(buffer, line...)
		if len(line) <= 2 && len(buffer) > 2 {
			break
		}
		if len(buffer) > headBytesMax {
			return request{}, buffer, errHead
		}
	}
	parsed, err := parseHead(buffer)
	return parsed, buffer, err
}

func parseHead(head []byte) (request, error) {
	line, rest, _ := bytes.Cut(head, []byte("\r\n"))
	method, target, ok := bytes.Cut(line, []byte(" "))
	target, _, found := bytes.Cut(target, []byte(" "))
	if !ok || !found {
		return request{}, errHead
	}
	parsed := request{method: method}
	parsed.path, parsed.query, _ = bytes.Cut(target, []byte("?"))
	for len(rest) > 2 {
		line, rest, _ = bytes.Cut(rest, []byte("\r\n"))
		name, value, ok := bytes.Cut(line, []byte(":"))
		if !ok {
			return request{}, errHead
		}
		if err := parsed.header(name, bytes.TrimSpace(value)); err != nil {
			return request{}, err
		}
	}
	return parsed, nil
}

func (r *request) header(name, value []byte) error {
	is := func(wanted string) bool { return len(name) == len(wanted) && bytes.EqualFold(name, []byte(wanted)) }
	switch {
	case is("content-length"):
		length, err := strconv.Atoi(string(value))
		if err != nil || length < 0 || length > bodyBytesMax {
			return fmt.Errorf("a Content-Length of %q", value)
		}
		r.length = length
	case is("transfer-encoding"):
		r.chunked = bytes.EqualFold(value, []byte("chunked"))
	case is("content-encoding"):
		r.awsChunked = r.awsChunked || bytes.Contains(value, []byte("aws-chunked"))
	case is("x-amz-content-sha256"):
		r.awsChunked = r.awsChunked || bytes.HasPrefix(value, []byte("STREAMING-"))
	case is("expect"):
		r.expects = true
	case is("connection"):
		r.closes = bytes.EqualFold(value, []byte("close"))
	case len(name) > 15 && bytes.EqualFold(name[:15], []byte("x-amz-checksum-")) && !is("x-amz-checksum-algorithm"):
		r.checksumName, r.checksumValue = name, value
	}
	return nil
}

// readBody reads the object's bytes into buffer: the framing of Transfer-Encoding and of aws-chunked is taken off.
func readBody(reader *bufio.Reader, head request, buffer []byte) ([]byte, error) {
	var err error
	if head.chunked {
		buffer, err = readChunks(reader, buffer[:0])
	} else {
		if cap(buffer) < head.length {
			buffer = make([]byte, head.length)
		}
		buffer = buffer[:head.length]
		_, err = io.ReadFull(reader, buffer)
	}
	if err != nil || !head.awsChunked {
		return buffer, err
	}
	return readChunks(bufio.NewReader(bytes.NewReader(buffer)), nil)
}

// readChunks reads `size[;extension]CRLF data CRLF … 0 CRLF [trailers] CRLF`.
func readChunks(reader *bufio.Reader, body []byte) ([]byte, error) {
	for {
		line, err := reader.ReadSlice('\n')
		if err != nil {
			return nil, err
		}
		digits, _, _ := bytes.Cut(bytes.TrimSpace(line), []byte(";"))
		size, err := strconv.ParseUint(string(digits), 16, 31)
		if err != nil || len(body)+int(size) > bodyBytesMax {
			return nil, fmt.Errorf("a chunk's size of %q", digits)
		}
		if size == 0 {
			return body, skipTrailers(reader)
		}
		at := len(body)
		body = append(body, make([]byte, size)...)
		if _, err := io.ReadFull(reader, body[at:]); err != nil {
			return nil, err
		}
		if _, err := reader.Discard(2); err != nil {
			return nil, err
		}
	}
}

func skipTrailers(reader *bufio.Reader) error {
	for {
		line, err := reader.ReadSlice('\n')
		if err == io.EOF {
			return nil // the end of an aws-chunked body, whose last empty line some leave out
		}
		if err != nil || len(bytes.TrimSpace(line)) == 0 {
			return err
		}
	}
}
