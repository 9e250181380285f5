# SPDX-License-Identifier: BSD-2-Clause
use strict;
use warnings;
use utf8;
use List::Util qw(sum max first reduce shuffle);
use Scalar::Util qw(blessed weaken reftype);
use POSIX qw(floor strftime fmod);

binmode STDOUT, ":utf8";
my %count;
$count{lc $_}++ for "the cat and the dog and The bird" =~ /\w+/g;
print join(", ", map { "$_=$count{$_}" } sort { $count{$b} <=> $count{$a} || $a cmp $b } keys %count), "\n";
(my $text = "2026-11-23 and 2025-01-02") =~ s/(\d+)-(\d+)-(\d+)/$3.$2.$1/g;
print "$text\n", join("|", split /\s*[,;]\s*/, "a , b;c,d"), "\n";
print "named $+{year}\n" if "in 1997" =~ /(?<year>\d{4})(?=$)/;
my $nested = qr/\((?:[^()]++|(?R))*\)/;
print "balanced: $1\n" if "f(a(b)c(d(e)))x" =~ /f($nested)/;
print join(" ", map { sprintf "%03b", $_ } 0 .. 7), " ", ucfirst(lc "ÜBER"), " ", scalar reverse("Straße"), "\n";
print unpack("H*", pack("nNvVC/a*d>", 1, 2, 3, 4, "text", 1.5)), " ", join(",", unpack("(A2)*", "aabbcc")), "\n";
print sum(1 .. 100), " ", max(3, 9, 2), " ", first { $_ > 3 } (1, 5, 7);
print " ", (reduce { $a * $b } 1 .. 15), " ", floor(-2.5), " ", fmod(7.5, 2), " ", 2 ** 0.5, " ", 10 / 3, " ", 1e21, "\n";
print strftime("%Y-%m-%d %H:%M:%S", gmtime 1e9), " ", hex("ff") + oct("0x1f") + oct("755"), "\n";

package Counter {
    sub new { my ($class, %with) = @_; return bless {%with, count => 0}, $class }
    sub step { my $self = shift; $self->{count} += $self->{by} // 1; return $self }
    sub DESTROY { print "destroyed at $_[0]{count}\n" }
}
my $counter = Counter->new(by => 3);
$counter->step->step;
print blessed($counter), " ", reftype($counter), " ", $counter->{count}, " ", Counter->can("step") ? "can" : "cannot", "\n";
undef $counter;
my @sorted = sort { $a->[1] <=> $b->[1] } map { [$_, ($_ * 7919) % 1009] } 1 .. 5000;
print "$sorted[0][0] $sorted[-1][0]\n";
my %tree;
$tree{$_ % 10}{$_ % 7}{$_} = $_ for 1 .. 20000;
print scalar(keys %tree), " ", sum(map { scalar keys %{$tree{3}{$_}} } keys %{$tree{3}}), "\n";
my $made = join "", map { chr(97 + $_ % 26) } 0 .. 200000;
print length $made, " ", ($made =~ tr/a//), " ", scalar(() = $made =~ /xyz/g), "\n";
my @closures = map { my $n = $_; sub { $n += shift // 1 } } 1 .. 3;
print join(" ", map { $_->(10) } @closures), " ", eval { die { code => 42 } } // $@->{code}, "\n";
eval "1 +* 2";
print $@ ? "no program\n" : "a program\n";
eval { my $x = 1 / 0 };
print $@;
local $, = "-";
print 1 .. 5;
printf "\n%s %5s|%-5s|%+d %e %g %vd\n", "a", "b", "c", 4, 12345.678, 0.00001234, "1.22.333";
warn "warned\n";
