package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

func started(t *testing.T) (string, *server) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	made := newServer()
	go made.serve(listener)
	return listener.Addr().String(), made
}

func put(t *testing.T, address, path, body string, headers map[string]string) *http.Response {
	t.Helper()
	request, err := http.NewRequest(http.MethodPut, "http://"+address+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range headers {
		request.Header.Set(name, value)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	return answer
}

func statsOf(t *testing.T, address string) Stats {
	t.Helper()
	answer, err := http.Get("http://" + address + "/stats")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	var got Stats
	if err := json.NewDecoder(answer.Body).Decode(&got); err != nil {
		t.Fatal(err)
	}
	return got
}

// Whatever the order and however often, the checksum is that of what the distinct keys hold.
func TestCountsDistinctKeysAndTheirBytes(t *testing.T) {
	address, _ := started(t)
	for _, one := range [][2]string{{"/b/1", "one"}, {"/b/2", "two"}, {"/b/1", "one"}, {"/b/3", "x"}, {"/b/3", "three"}} {
		put(t, address, one[0], one[1], nil)
	}
	sum := fingerprint([]byte("one")) + fingerprint([]byte("two")) + fingerprint([]byte("three"))
	got := statsOf(t, address)
	if got.Puts != 5 || got.Keys != 3 || got.Changed != 1 || got.Checksum != strconv.FormatUint(sum, 16) {
		t.Fatalf("%+v, wanted a checksum of %x", got, sum)
	}
}

func TestAProbeOfTheBucketIsNoObject(t *testing.T) {
	address, _ := started(t)
	if answer := put(t, address, "/b/.spillway/probe", "x", nil); answer.StatusCode != 200 || answer.Header.Get("ETag") == "" {
		t.Fatal(answer)
	}
	if got := statsOf(t, address); got.Puts != 0 || got.Keys != 0 || got.Checksum != "0" {
		t.Fatalf("%+v", got)
	}
}

func TestTheEtagIsTheMd5AndChecksumsAreEchoed(t *testing.T) {
	address, _ := started(t)
	answer := put(t, address, "/b/k", "hello", map[string]string{"x-amz-checksum-crc32": "NhCmhg=="})
	if etag := answer.Header.Get("ETag"); etag != `"5d41402abc4b2a76b9719d911017c592"` {
		t.Fatal(etag)
	}
	if echoed := answer.Header.Get("x-amz-checksum-crc32"); echoed != "NhCmhg==" {
		t.Fatal(echoed)
	}
}

func TestTakesTheFramingOffSignedChunks(t *testing.T) {
	address, _ := started(t)
	framed := "5;chunk-signature=abc\r\nhello\r\n6\r\n world\r\n0;chunk-signature=def\r\nx-amz-checksum-crc32:DUoRhQ==\r\n\r\n"
	put(t, address, "/b/k", framed, map[string]string{"x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER"})
	got := statsOf(t, address)
	if want := strconv.FormatUint(fingerprint([]byte("hello world")), 16); got.Checksum != want || got.Bytes != 11 {
		t.Fatalf("%+v, wanted %s", got, want)
	}
}

func TestSaysContinueBeforeABodyThatWaitsForIt(t *testing.T) {
	address, _ := started(t)
	connection, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	if err := connection.SetDeadline(time.Now().Add(20 * time.Second)); err != nil { // a client that waits for ever
		t.Fatal(err)
	}
	io.WriteString(connection, "PUT /b/k HTTP/1.1\r\nHost: s\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
	reader := bufio.NewReader(connection)
	if line, _ := reader.ReadString('\n'); line != "HTTP/1.1 100 Continue\r\n" {
		t.Fatal(line)
	}
	io.WriteString(connection, "ab")
	reader.ReadString('\n')
	if line, _ := reader.ReadString('\n'); line != "HTTP/1.1 200 OK\r\n" {
		t.Fatal(line)
	}
}

func TestResetForgetsEverything(t *testing.T) {
	address, server := started(t)
	put(t, address, "/b/k", "hello", nil)
	if _, err := http.Post("http://"+address+"/reset?latency_ms=150", "", nil); err != nil {
		t.Fatal(err)
	}
	if got := statsOf(t, address); got.Puts != 0 || got.Keys != 0 || got.Checksum != "0" || server.latency.Load() != 150e6 {
		t.Fatalf("%+v", got)
	}
}

func TestRefusesWhatIsNoRequest(t *testing.T) {
	for _, head := range []string{"GET\r\n\r\n", "PUT /b/k HTTP/1.1\r\nContent-Length: -1\r\n\r\n", "PUT /b/k HTTP/1.1\r\nnothing\r\n\r\n"} {
		if _, _, err := readHead(bufio.NewReader(bytes.NewBufferString(head)), nil); err == nil {
			t.Errorf("%q was taken", head)
		}
	}
}
