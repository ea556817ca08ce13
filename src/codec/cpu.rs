//! Which instructions the inner loops may use, found at run time.

/// The inner loops have several variants; all give the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cpu {
    /// Whatever the target guarantees.
    Portable,
    /// x86-64 with BMI1, BMI2 and LZCNT: shifts by a variable count without flags.
    #[cfg(target_arch = "x86_64")]
    Bmi2,
    /// The same with AVX-512 that permutes bytes: tables in registers.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Cpu {
    /// The best that this machine has.
    pub(super) fn detect() -> Cpu {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("bmi1")
            && std::arch::is_x86_feature_detected!("bmi2")
            && std::arch::is_x86_feature_detected!("lzcnt")
        {
            if std::arch::is_x86_feature_detected!("avx512f")
                && std::arch::is_x86_feature_detected!("avx512bw")
                && std::arch::is_x86_feature_detected!("avx512vbmi")
            {
                return Cpu::Avx512;
            }
            return Cpu::Bmi2;
        }
        Cpu::Portable
    }

    /// All that this machine can run.
    #[cfg(test)]
    pub(super) fn all() -> Vec<Cpu> {
        #[cfg_attr(not(target_arch = "x86_64"), allow(unused_mut))]
        let mut all = vec![Cpu::Portable];
        #[cfg(target_arch = "x86_64")]
        match Cpu::detect() {
            Cpu::Portable => {}
            Cpu::Bmi2 => all.push(Cpu::Bmi2),
            Cpu::Avx512 => all.extend([Cpu::Bmi2, Cpu::Avx512]),
        }
        all
    }
}

impl Default for Cpu {
    fn default() -> Cpu {
        Cpu::detect()
    }
}

/// Defines a function twice over one `#[inline(always)]` body: portable, and for BMI2.
///
/// The first argument of the result selects the variant.
macro_rules! multiversion {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:expr) => {
        $(#[$doc])*
        $vis fn $name(cpu: $crate::codec::cpu::Cpu, $($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "bmi1,bmi2,lzcnt")]
            fn bmi2($($arg: $ty),*) $(-> $ret)? {
                $body($($arg),*)
            }
            match cpu {
                $crate::codec::cpu::Cpu::Portable => $body($($arg),*),
                // SAFETY: these variants of `Cpu` are made only where the three features were found.
                #[cfg(target_arch = "x86_64")]
                #[allow(unsafe_code)]
                $crate::codec::cpu::Cpu::Bmi2 | $crate::codec::cpu::Cpu::Avx512 => unsafe { bmi2($($arg),*) },
            }
        }
    };
}
pub(super) use multiversion;
