// The asking side: kept-alive connections that send one and the same request, and note when what arrived.
//
// Raw HTTP over a socket, so that one read is one TLS record, and nothing is parsed that need not be.

package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand"
	"net"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Job is what to do. All connections ask at once; those of a spread begin by lot, and the lot is always the same.
type Job struct {
	Address     string  // host:port
	Name        string  // for SNI and the certificate; "" is plain HTTP
	CA          string  // PEM
	Certificate string  // PEM, where the other side asks for one
	Key         string  // PEM
	Request     string  // head and body, as they are sent
	Connections int     //
	Requests    int     // on each connection
	Warm        int     // before them, on each connection, and not counted
	SpreadMs    float64 // between the first connection's start and the last one's
	PerSecond   float64 // on each connection; 0: the next request follows the answer
	Seconds     float64 // most that all of it may take
}

// Answer is one request's. Times in microseconds, from the sending of the request; gaps between chunks.
type Answer struct {
	Status    int       `json:"status"`
	First     float64   `json:"first"`     // to the first chunk
	Last      float64   `json:"last"`      // to the end
	LongGap   float64   `json:"long_gap"`  // the longest
	Chunks    []float64 `json:"chunks"`    // from written by the stand-in to read here, in order
	Coalesced int       `json:"coalesced"` // chunks that came in one read with another one
	Bytes     int       `json:"bytes"`
	Body      string    `json:"body,omitempty"` // its beginning, where the status is not 200
}

// Result is what came of it.
type Result struct {
	Seconds float64    `json:"seconds"` // of the counted requests
	CPU     float64    `json:"cpu"`     // seconds that this program took for them
	Answers [][]Answer `json:"answers"` // by connection
}

func ask(job Job) (Result, error) {
	settings, err := trust(job)
	if err != nil {
		return Result{}, err
	}
	deadline := time.Now().Add(time.Duration(job.Seconds * float64(time.Second)))
	lot := rand.New(rand.NewSource(1))
	answers := make([][]Answer, job.Connections)
	failures := make([]error, job.Connections)
	var warm, all sync.WaitGroup
	begin := make(chan struct{})
	var started time.Time
	for i := range answers {
		delay := time.Duration(lot.Float64() * job.SpreadMs * float64(time.Millisecond))
		warm.Add(1)
		all.Add(1)
		go func() {
			defer all.Done()
			own := &line{job: job, settings: settings, deadline: deadline, data: make([]byte, 64*1024)}
			defer own.close()
			for n := 0; n < job.Warm && failures[i] == nil; n++ {
				_, failures[i] = own.ask()
			}
			if failures[i] == nil {
				failures[i] = own.open()
			}
			warm.Done()
			<-begin
			first := started.Add(delay)
			for n := 0; n < job.Requests && failures[i] == nil; n++ {
				if job.PerSecond > 0 {
					time.Sleep(time.Until(first.Add(time.Duration(float64(n) / job.PerSecond * float64(time.Second)))))
				} else if n == 0 {
					time.Sleep(time.Until(first))
				}
				var one Answer
				if one, failures[i] = own.ask(); failures[i] == nil {
					answers[i] = append(answers[i], one)
				}
			}
		}()
	}
	warm.Wait()
	before := used()
	started = time.Now()
	close(begin)
	all.Wait()
	result := Result{Seconds: time.Since(started).Seconds(), CPU: used() - before, Answers: answers}
	return result, errors.Join(failures...)
}

func trust(job Job) (*tls.Config, error) {
	if job.Name == "" {
		return nil, nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(job.CA)) {
		return nil, errors.New("no CA in the job")
	}
	settings := &tls.Config{ServerName: job.Name, RootCAs: pool, MinVersion: tls.VersionTLS13}
	if job.Certificate != "" {
		pair, err := tls.X509KeyPair([]byte(job.Certificate), []byte(job.Key))
		if err != nil {
			return nil, err
		}
		settings.Certificates = []tls.Certificate{pair}
	}
	return settings, nil
}

func used() float64 {
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) != nil {
		return 0
	}
	return float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9
}

// line is one kept-alive connection.
type line struct {
	job      Job
	settings *tls.Config
	deadline time.Time
	conn     net.Conn
	data     []byte
}

func (l *line) close() {
	if l.conn != nil {
		l.conn.Close()
		l.conn = nil
	}
}

func (l *line) open() error {
	if l.conn != nil {
		return nil
	}
	plain, err := net.DialTimeout("tcp", l.job.Address, 10*time.Second)
	if err != nil {
		return err
	}
	plain.SetDeadline(l.deadline)
	l.conn = plain
	if l.settings != nil {
		secured := tls.Client(plain, l.settings)
		l.conn = secured
		return secured.Handshake()
	}
	return nil
}

func (l *line) ask() (Answer, error) {
	if err := l.open(); err != nil {
		return Answer{}, err
	}
	started := time.Now()
	if _, err := l.conn.Write([]byte(l.job.Request)); err != nil {
		return Answer{}, fmt.Errorf("not all of the request was taken: %w", err)
	}
	got := reader{started: started}
	for !got.done {
		n, err := l.conn.Read(l.data)
		if n > 0 {
			got.take(l.data[:n], time.Now())
		}
		if err != nil && !got.done {
			return Answer{}, fmt.Errorf("cut after %d bytes and %d chunks: %w", got.answer.Bytes, len(got.answer.Chunks), err)
		}
	}
	if got.closing {
		l.close()
	}
	if got.answer.Status != 200 {
		got.answer.Body = string(got.kept[:min(300, len(got.kept))])
	}
	return got.answer, nil
}

// reader takes one answer in, read by read.
type reader struct {
	started  time.Time
	answer   Answer
	head     []byte // until it is whole
	kept     []byte // the beginning of the body
	tail     []byte // the last bytes, where a chunked body's end shows
	length   int    // of the body, -1: chunked
	body     int    // bytes of it so far
	inBody   bool
	done     bool
	closing  bool
	digits   int // of a stamp that is being read
	value    int64
	previous time.Time // when the chunk before came
}

func (r *reader) take(data []byte, now time.Time) {
	r.answer.Bytes += len(data)
	if !r.inBody {
		r.head = append(r.head, data...)
		at := bytes.Index(r.head, []byte("\r\n\r\n"))
		if at < 0 {
			return
		}
		r.readHead(r.head[:at+2])
		data = r.head[at+4:]
		r.inBody = true
	}
	r.body += len(data)
	if len(r.kept) < 300 {
		r.kept = append(r.kept, data...)
	}
	r.stamps(data, now)
	if r.length < 0 {
		r.tail = append(r.tail, data[max(0, len(data)-7):]...)
		r.tail = r.tail[max(0, len(r.tail)-7):]
		r.done = bytes.HasSuffix(r.tail, []byte("0\r\n\r\n")) && (r.body == 5 || bytes.HasPrefix(r.tail, []byte("\r\n")))
	} else {
		r.done = r.body >= r.length
	}
	if r.done {
		r.answer.Last = micro(now.Sub(r.started))
	}
}

func (r *reader) readHead(head []byte) {
	r.answer.Status, _ = strconv.Atoi(string(head[9:12]))
	lower := bytes.ToLower(head)
	r.closing = bytes.Contains(lower, []byte("\r\nconnection: close\r\n"))
	r.length = 0
	if bytes.Contains(lower, []byte("\r\ntransfer-encoding: chunked\r\n")) {
		r.length = -1
	} else if at := bytes.Index(lower, []byte("\r\ncontent-length: ")); at >= 0 {
		value := lower[at+18:]
		r.length, _ = strconv.Atoi(string(value[:bytes.IndexByte(value, '\r')]))
	}
}

// A stamp is a run of 19 digits; it may begin in one read and end in the next, and then it came with the next.
func (r *reader) stamps(data []byte, now time.Time) {
	found := 0
	for _, c := range data {
		if c >= '0' && c <= '9' {
			r.digits++
			r.value = r.value*10 + int64(c-'0')
			continue
		}
		if r.digits == 19 {
			found++
			r.answer.Chunks = append(r.answer.Chunks, float64(now.UnixNano()-r.value)/1000)
			if r.previous.IsZero() {
				r.answer.First = micro(now.Sub(r.started))
			} else {
				r.answer.LongGap = max(r.answer.LongGap, micro(now.Sub(r.previous)))
			}
			r.previous = now
		}
		r.digits, r.value = 0, 0
	}
	if found > 1 {
		r.answer.Coalesced += found
	}
}

func micro(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 }
