package main

import (
	"bytes"
	"strconv"
)

// answer is one response's outcome.
type answer struct {
	status   int
	accepted int // -1: the body does not say
	closes   bool
}

// parse reads an answer from the front of data; complete is false while more has to come. Content-Length and chunked only,
// which is what HTTP/1.1 servers send to a client that keeps its connection.
func parse(data []byte) (got answer, complete bool, err error) {
	end := bytes.Index(data, []byte("\r\n\r\n"))
	if end < 0 {
		return answer{}, false, nil
	}
	head, body := data[:end+2], data[end+4:]
	if len(head) < 14 || !bytes.HasPrefix(head, []byte("HTTP/1.")) {
		return answer{}, true, errAnswer
	}
	if got.status, err = strconv.Atoi(string(head[9:12])); err != nil {
		return answer{}, true, errAnswer
	}
	length := -1
	_, rest, _ := bytes.Cut(head, []byte("\r\n"))
	for len(rest) > 0 {
		var line []byte
		line, rest, _ = bytes.Cut(rest, []byte("\r\n"))
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch value = bytes.TrimSpace(value); {
		case len(name) == 14 && bytes.EqualFold(name, []byte("content-length")):
			if length, err = strconv.Atoi(string(value)); err != nil {
				return answer{}, true, errAnswer
			}
		case len(name) == 10 && bytes.EqualFold(name, []byte("connection")):
			got.closes = bytes.EqualFold(value, []byte("close"))
		}
	}
	switch {
	case length >= 0 && len(body) < length, length < 0 && !bytes.HasSuffix(body, []byte("0\r\n\r\n")):
		return answer{}, false, nil
	case length >= 0 && len(body) > length:
		return answer{}, true, errAnswer // two answers to one request
	}
	got.accepted = acceptedIn(body)
	return got, true, nil
}

// acceptedIn finds `"accepted": n`; the rest of the body is not parsed, it would cost more than the request.
func acceptedIn(body []byte) int {
	_, after, found := bytes.Cut(body, []byte(`"accepted":`))
	if !found {
		return -1
	}
	count := 0
	for _, digit := range bytes.TrimLeft(after, " ") {
		if digit < '0' || digit > '9' {
			break
		}
		count = count*10 + int(digit-'0')
	}
	return count
}
