# SPDX-License-Identifier: BSD-2-Clause
use strict;
use warnings;
use Errno qw(EAGAIN);
use Fcntl qw(:flock :seek O_NONBLOCK F_SETFL);
use File::Spec;
use IO::Handle;
use IO::Select;
use IO::Socket;
use POSIX ":sys_wait_h";
use Socket;

$| = 1;
open my $out, ">", "lines" or die;
print $out "line $_\n" for 1 .. 1000;
close $out;
open my $in, "<", "lines" or die;
my @last = (<$in>)[-2, -1];
seek $in, 0, SEEK_SET;
read $in, my $start, 6;
print @last, $start, -s "lines", " ", tell $in, "\n";
flock $in, LOCK_EX or die;
mkdir "folder" or die;
rename "lines", "folder/renamed" or die;
symlink "folder/renamed", "link" or die;
chmod 0600, "link";
utime 1e9, 1e9, "link";
printf "%s %o %d\n", readlink "link", (stat "link")[2], (stat _)[9];
opendir my $dir, "." or die;
print join(" ", sort grep { !/^\./ } readdir $dir), " ", join(" ", glob "fo*/*"), "\n";
print -d "folder" ? "folder" : "none", " ", -l "link" ? "link" : "none", "\n";
open(my $none, "<", "none") or print "none: $!\n";
open my $text, "<", \"in\nmemory\n";
print scalar(my @all = <$text>), " lines in memory\n";

my @children;
for my $status (3, 1, 2) {
    my $child = fork // die;
    exit $status unless $child;
    push @children, $child;
}
print join(" ", map { waitpid($_, 0); $? >> 8 } @children), "\n";
my $child = fork // die;
if (!$child) { kill KILL => $$; sleep 100 }
waitpid $child, 0;
print "signal ", $? & 127, " ", waitpid(-1, WNOHANG), "\n";
print "said: ", `echo through a shell; exit 5`, $? >> 8, "\n";
open my $pipe, "-|", "seq 5 | tac" or die;
chomp(my @numbers = <$pipe>);
close $pipe;
print "@numbers\n";
open $pipe, "|-", "tr a-z A-Z" or die;
print $pipe "to a pipe\n";
close $pipe;
print system("sh", "-c", "exit 7") >> 8, " ", system("/nonexistent") < 0 ? $! : "?", "\n";

my $seen = "";
$SIG{USR1} = sub { $seen .= "usr1 " };
$SIG{ALRM} = sub { die "alarm\n" };
kill USR1 => $$;
eval { alarm 1; select undef, undef, undef, 60 while 1 };
print $seen, $@;
$SIG{PIPE} = sub { $seen = "broken pipe" };
pipe my $reader, my $writer;
close $reader;
syswrite $writer, "x" or print "$!\n";
print "$seen\n";

socketpair my $one, my $other, AF_UNIX, SOCK_STREAM, PF_UNSPEC or die;
syswrite $one, "paired";
sysread $other, my $data, 100;
print "$data\n";
fcntl $other, F_SETFL, O_NONBLOCK;
print sysread($other, $data, 1) // ($! == EAGAIN ? "nothing yet" : $!), "\n";
my $server = IO::Socket::INET->new(Listen => 5, LocalAddr => "127.0.0.1") or die;
for my $number (1 .. 3) {
    my $child = fork // die;
    if (!$child) {
        my $client = IO::Socket::INET->new(PeerAddr => "127.0.0.1", PeerPort => $server->sockport) or die;
        print $client "client $number\n";
        exit(<$client> eq "served client $number\n" ? 0 : 1);
    }
    my $connection = $server->accept;
    print $connection "served ", scalar <$connection>;
    close $connection;
    waitpid $child, 0;
    print "client $number: $?\n";
}
my $select = IO::Select->new($server);
print scalar($select->can_read(0.01)), " wait\n";
print join(" ", map { defined getpwuid($_) ? "user" : "nobody" } 0), " ", (times)[0] >= 0 ? "time" : "none", "\n";
$0 = "renamed";
print File::Spec->catfile("a", "b"), " $^O ", sprintf("%vd", $^V) =~ /^5\./ ? 5 : 0, "\n";
END { print "at the end\n" }
die "died\n";
